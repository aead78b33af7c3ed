"""The code of "Forgers and Detectives", a hands-on course in generative adversarial networks.

Every chapter of the book imports from here what it has first written by hand.
"""

__version__ = "0.1.0"
