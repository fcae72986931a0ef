"""Build the native audio core.  Everything else is declared in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = ["mel", "pcm", "ring", "segmenter"]
SANITIZE = os.environ.get("STREAMSRV_SANITIZE") == "1"
# -ffp-contract=off: no fused multiply-add, so that every machine rounds alike.
EXACT = ["-ffp-contract=off", "-fno-math-errno"]
COMPILE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-wrapv"] if SANITIZE else ["-O3"]
LINK = ["-fsanitize=address,undefined"] if SANITIZE else []

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"streamsrv._native.{name}",
                [f"native/{name}.pyx"],
                extra_compile_args=COMPILE + EXACT,
                extra_link_args=LINK,
            )
            for name in MODULES
        ],
        build_dir="build/cython",
        include_path=["."],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "auto_pickle": False,
            "autotestdict": False,
        },
    ),
)
