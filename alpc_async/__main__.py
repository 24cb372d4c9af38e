"""``python -m alpc_async``: the same as the command ``alpc``.

Belongs here: the call of `main`. Never here: anything else.
"""

from .tools import main

if __name__ == "__main__":
    main()
