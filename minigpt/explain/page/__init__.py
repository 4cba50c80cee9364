"""The page of `explain`: results and figures -> one HTML file. Gives `page_of` and `write_page`."""

from minigpt.explain.page.page import page_of, write_page

__all__ = ["page_of", "write_page"]
