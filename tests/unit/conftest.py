"""An example may take its time: the machine may be busy with a broker and a database."""

from hypothesis import settings

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")
