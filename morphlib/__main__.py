"""Where the program starts: `morph`, `python -m morphlib`."""

import sys


def main() -> None:
    # Before anything is imported that an older Python can't even read.
    if sys.version_info < (3, 11):  # noqa: UP036 - said to those whose Python is older
        sys.exit("ERROR: Morph needs Python 3.11 or later, this is " + sys.version.split()[0])
    try:
        from morphlib.app import run_program
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "morphlib":
            raise
        sys.exit(
            "ERROR: Morph needs the Python library "
            + str(error.name)
            + "\n  Install Morph with its libraries: python3 -m pip install DIRECTORY-OF-MORPH"
        )
    if sys.argv[0].endswith("__main__.py"):
        sys.argv[0] = "morph"
    sys.exit(run_program(sys.argv))


if __name__ == "__main__":
    main()
