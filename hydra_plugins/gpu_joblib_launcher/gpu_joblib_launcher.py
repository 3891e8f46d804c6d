"""Hydra finds plugins in the package ``hydra_plugins`` alone; the rest is in :mod:`study`."""

from contextlib import suppress

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

with suppress(ImportError):  # without joblib there is no such launcher
    from study import joblib_launcher

    class JoblibLauncher(joblib_launcher.JoblibLauncher):
        """See :class:`study.joblib_launcher.JoblibLauncher`."""

    class JoblibSettings(SearchPathPlugin):
        """Called when all plugins are loaded: Hydra's own for joblib may come after ours."""

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            joblib_launcher.register_settings()
