"""The command line: the demo and the benchmark.

Belongs here: programs that use the library as its users do. Never here: anything that a library would import.

Importing this package does not load the command line's own dependencies: the processes of the demo and of the benchmark
come through here too, and do without them.
"""

from ._main import main as main
