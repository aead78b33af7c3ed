"""Lets `python -m course_lib` run the command line."""

import sys

from course_lib.cli import main

sys.exit(main())
