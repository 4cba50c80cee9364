"""What stands beside the package in a checkout: train.py and weights/."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
INSTALLED = PACKAGE / "checkout"  # an installed package has them in a folder of its own


def checkout() -> Path:
    """Return the folder they are in."""
    return INSTALLED if INSTALLED.is_dir() else PACKAGE.parent


def train_command(processes: int = 1) -> str:
    """Return how one starts train.py here."""
    launcher = f"torchrun --nproc_per_node={processes}" if processes > 1 else "python"
    return f"{launcher} -m minigpt train" if INSTALLED.is_dir() else f"{launcher} train.py"
