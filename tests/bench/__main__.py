"""The one way in to what is measured: `python -m tests.bench NAME ...`; without a name, what there is."""

import runpy
import sys
from importlib import import_module
from pkgutil import iter_modules

from tests import bench


def listed() -> dict[str, str]:
    """What can be run, and the first line of what each says of itself."""
    names = [module.name for module in iter_modules(bench.__path__) if not module.name.startswith("_")]
    return {name: (import_module(f"tests.bench.{name}").__doc__ or "").partition("\n")[0] for name in names}


def main(arguments: list[str]) -> None:
    """Run the bench that is named first with the arguments that follow."""
    if not arguments or arguments[0] not in listed():
        what = "\n".join(f"    {name:12}{says}" for name, says in listed().items())
        sys.exit(f"{__doc__}\n\n{what}")
    name, *rest = arguments
    sys.argv = [f"tests.bench.{name}", *rest]
    runpy.run_module(f"tests.bench.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
