"""The compiled module. Without a C compiler the package is installed without it, and its NumPy code runs."""

from setuptools import Extension, setup

NAMES = ("module", "pool", "openmp", "step", "rows_default", "rows_v3", "rows_v4", "walk", "lookup", "alive")
NAMES += ("splice", "sort", "compact")
FLAGS = ["-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-pthread"]
# Names must not be those of other libraries in the process.
FLAGS += ["-fvisibility=hidden"]

setup(
    ext_modules=[
        Extension(
            "hedgerow._native",
            [f"src/native/{name}.c" for name in NAMES],
            depends=[f"src/native/{name}.h" for name in ("arguments", "native", "compact", "step", "rows")],
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread"],
            py_limited_api=True,
            optional=True,
        )
    ],
    # One wheel for CPython 3.11 and all later versions.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
