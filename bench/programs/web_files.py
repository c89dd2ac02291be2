"""Starlette's application for files: ``asgi`` serves the folder that BENCH_SITE names."""

import os

from starlette.staticfiles import StaticFiles

asgi = StaticFiles(directory=os.environ["BENCH_SITE"])
