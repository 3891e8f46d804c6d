"""Hydra finds plugins only in ``hydra_plugins``; the launcher itself is in :mod:`study`."""

from contextlib import suppress

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

with suppress(ImportError):  # without joblib there is no such launcher
    from study import joblib_launcher

    class JoblibLauncher(joblib_launcher.JoblibLauncher):
        """See :class:`study.joblib_launcher.JoblibLauncher`."""

    class JoblibSettings(SearchPathPlugin):
        """Replaces the settings after all plugins are loaded, as Hydra's may load after ours."""

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            joblib_launcher.register_settings()
