"""Hydra finds plugins only in ``hydra_plugins``; the sweeper itself is in :mod:`study`."""

from study import sweeper


class StudySweeper(sweeper.StudySweeper):
    """See :class:`study.sweeper.StudySweeper`."""
