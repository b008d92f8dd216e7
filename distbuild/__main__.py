"""Where the program starts: `distbuild-helper`, `python -m distbuild`."""

import sys


def main() -> None:
    """Run the program with the command line of this process, and end the process."""
    # Before anything is imported that an older Python can't even read.
    if sys.version_info < (3, 11):  # noqa: UP036 - said to those whose Python is older
        sys.exit("ERROR: Morph needs Python 3.11 or later, this is " + sys.version.split()[0])
    if sys.argv[0].endswith("__main__.py"):
        sys.argv[0] = "distbuild-helper"
    try:
        from distbuild.program import run_program

        status = run_program(sys.argv)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("morphlib", "distbuild"):
            raise
        sys.exit(
            "ERROR: Morph needs the Python library "
            + str(error.name)
            + "\n  Install Morph with its libraries: python3 -m pip install DIRECTORY-OF-MORPH"
        )
    except KeyboardInterrupt:  # before the program was ready to tell
        status = 255
    sys.exit(status)


if __name__ == "__main__":
    main()
