"""python -m minigpt predict | evaluate | generate | explain | export | cache"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read as torch loads: threads that wait sleep
from minigpt.cli.commands import main
from minigpt.cli.program import errors_for_people

if __name__ == "__main__":
    with errors_for_people():
        main()
