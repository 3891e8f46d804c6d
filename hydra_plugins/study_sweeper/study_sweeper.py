"""Hydra finds plugins in the package ``hydra_plugins`` alone; the sweeper is in :mod:`study`."""

from study import sweeper


class StudySweeper(sweeper.StudySweeper):
    """See :class:`study.sweeper.StudySweeper`."""
