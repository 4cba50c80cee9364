"""python -m minigpt train | predict | evaluate | generate | explain | export | cache"""

from minigpt.cli.commands import program

if __name__ == "__main__":
    program()
