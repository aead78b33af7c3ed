"""The code of "Forgers and Detectives", a hands-on course in generative adversarial networks.

Every chapter of the book imports from here what it has first written by hand.
"""

import warnings

__version__ = "0.1.0"

# Accelerate imports tqdm's notebook bars, which warn where no widgets are installed. The course uses plain bars.
warnings.filterwarnings("ignore", message="IProgress not found")
