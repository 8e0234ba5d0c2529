"""Every reader of files, given damaged ones: it may read them or raise a MaskInversionError, and nothing else.

    python -m tests.fuzz --minutes 8 [--reader coco] [--inputs 1000] [--finds FOLDER]

With atheris (Linux, `pip install atheris`) inputs that reach new lines are kept and changed again; without it all come from the
first.
"""
