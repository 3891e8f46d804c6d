"""Any optimizer of pytorch_optimizer: ``optimizer=pytorch_optimizer optimizer.name=SOAP``."""

import inspect
from difflib import get_close_matches
from typing import Any

from torch.backends import opt_einsum
from torch.optim import Optimizer

from core.errors import ConfigError, reason


def pytorch_optimizer(params: Any, name: str, lr: float, **settings: Any) -> Optimizer:
    """Create pytorch_optimizer's optimizer ``name`` (case-insensitive).

    The package's classes silently ignore unknown settings; here they are errors.

    Raises:
        ConfigError: if the package has no such optimizer, or the optimizer no such setting.
    """
    from pytorch_optimizer import get_supported_optimizers, load_optimizer

    names = get_supported_optimizers()
    if name.lower() not in names:
        nearest = get_close_matches(name.lower(), names, n=3)
        hint = f"; closest: {', '.join(nearest)}" if nearest else ""
        raise ConfigError(
            f"optimizer.name={name}: pytorch_optimizer has no optimizer of this name{hint}"
        )
    build: Any = load_optimizer(name)
    if name.lower() == "kron" and not opt_einsum.is_available():
        raise ConfigError(f"optimizer.name={name} needs the package opt_einsum: pip install it")
    known = [
        parameter.name
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name != "params"
    ]
    if not settings.get("weight_decay"):  # a few optimizers have none
        settings = {key: value for key, value in settings.items() if key in known or value != 0}
    for key in settings:
        if key not in known:
            nearest = get_close_matches(key, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"it has {', '.join(known)}"
            raise ConfigError(f"optimizer.{key}: {build.__name__} has no such setting; {hint}")
    try:
        return build(params, lr=lr, **settings)
    except (AttributeError, ImportError) as error:  # it needs the model or another package
        raise ConfigError(f"optimizer.name={name} cannot be used here: {reason(error)}") from error
