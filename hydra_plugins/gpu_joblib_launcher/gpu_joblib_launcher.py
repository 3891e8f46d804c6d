"""Hydra finds plugins only in ``hydra_plugins``; the launcher itself is in :mod:`study`."""

from contextlib import suppress

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

with suppress(ImportError):  # without joblib there is no such launcher
    from study import joblib_launcher

    class JoblibLauncher(joblib_launcher.JoblibLauncher):
        """See :class:`study.joblib_launcher.JoblibLauncher`."""

    class JoblibSettings(SearchPathPlugin):
        """Replaces their schema after all plugins are loaded, as Hydra's may load after ours."""

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            settings = joblib_launcher.Settings
            ConfigStore.instance().store(group="hydra/launcher", name="joblib", node=settings)
