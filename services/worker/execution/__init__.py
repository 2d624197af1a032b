"""One run: its arguments, its call in a thread, an event loop or a process, its outcome."""
