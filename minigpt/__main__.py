"""python -m minigpt predict | generate | explain | export | cache"""

from minigpt.cli.commands import main
from minigpt.cli.program import errors_for_people

if __name__ == "__main__":
    with errors_for_people():
        main()
