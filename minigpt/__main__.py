"""python -m minigpt predict | evaluate | generate | explain | export | cache"""

from minigpt.cli import errors_for_people, main

if __name__ == "__main__":
    with errors_for_people():
        main()
