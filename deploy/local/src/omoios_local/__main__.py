"""`python -m omoios_local`."""

from omoios_local.cli import app

app(prog_name="omoios_local")
