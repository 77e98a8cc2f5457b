"""`python -m eyeline` is the command `eyeline`; torchrun starts it so."""

from eyeline.cli.main import main

main()
