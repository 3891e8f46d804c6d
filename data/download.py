"""Downloads through torchvision, which knows the addresses and hashes of the data sets."""

from core.errors import ConfigError


def download(name: str, root: str) -> None:
    """Have ``torchvision.datasets.<name>`` put its files under ``root``.

    Raises:
        ConfigError: there is no network, or no permission to write.
    """
    from torchvision import datasets  # costs seconds: only for the run that downloads

    try:
        getattr(datasets, name)(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"data.root={root} does not hold {name}, and it cannot be downloaded: {reason}"
        ) from error
