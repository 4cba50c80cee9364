"""What stands beside the package in a checkout: train.py and weights/."""

from pathlib import Path


def checkout() -> Path:
    """Return the folder they are in: an installed package has them in a folder of its own."""
    package = Path(__file__).parents[1]
    installed = package / "checkout"
    return installed if installed.is_dir() else package.parent


def train_command(processes: int = 1) -> str:
    """Return how one starts train.py, in a checkout and wherever the package is installed."""
    launcher = f"torchrun --nproc_per_node={processes}" if processes > 1 else "python"
    return f"{launcher} -m minigpt train"
