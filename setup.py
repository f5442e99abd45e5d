"""Packaging of asrtool. The exact versions that local/path.sh installs are in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', Path("asrtool/__init__.py").read_text()).group(1)

setup(
    name="asrtool",
    version=VERSION,
    description="Transformer acoustic models for large-scale speech recognition, with Kaldi-style recipes",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=["speech recognition", "acoustic model", "Transformer", "Kaldi", "CTC", "LF-MMI", "streaming"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    project_urls={"Paper": "https://arxiv.org/abs/2005.09684"},
    python_requires=">=3.11",
    packages=find_packages(include=["asrtool", "asrtool.*"]),
    package_data={"asrtool": ["py.typed", "pages/assets/*", "recipes/templates/*", "serve/page/*"]},
    # With this, an editable installation is a path entry (.pth) and not an import hook. Python then prefers the package
    # to a folder called asrtool without __init__.py in the current folder: the clone, seen from the folder above it.
    package_dir={"": "."},
    # The lower bounds are tried by tools/test_floors.sh.
    install_requires=[
        "torch>=2.7",
        "lhotse>=1.30.3",
        "sentencepiece>=0.2.2",
        "click>=8.1.7",
        "kaldialign>=0.12",
        "kaldifst>=1.8.3",  # graphs: OpenFst, with Kaldi's determinisation
        "kaldi-decoder>=0.3.2",
        "kaldilm>=1.15.5",  # ARPA files to graphs
        "numpy>=1.26.4",
        "pydantic>=2.8",
        "pyyaml>=6.0.1",
        "soundfile>=0.12.1",
        "lilcom>=1.7",
        "scipy>=1.12",  # lhotse resamples with it and does not declare it
        "urllib3>=2.0.7",  # likewise, at import
        "tqdm>=4.66.1",
        "tensorboard>=2.16.2",
        "matplotlib>=3.8.4",
        "safetensors>=0.5",  # weights of packs
        "soxr>=0.5",  # resampling, of whole files and of streams
        "pysubs2>=1.8",  # subtitles
        "praatio>=6.2",  # TextGrid
    ],
    extras_require={
        "recipes": [
            "espeakng-loader",  # the voices of egs/digits
            "pocketsphinx",  # CMUdict
            "phonetisaurus",  # pronunciations of words that no dictionary has
        ],
        "audio": [
            "av",  # m4a, mp4 and other containers, by FFmpeg
            "silero-vad",  # speech in long recordings; its weights are in the package
            "onnxruntime",  # makes silero-vad four times as fast
        ],
        "export": ["onnx", "onnxscript", "onnxruntime"],
        "serve": [
            "starlette",
            "uvicorn",
            "websockets",
            "python-multipart",  # uploads of forms
            "prometheus-client",
        ],
        "microphone": ["sounddevice"],
        "wandb": ["wandb"],  # experiment tracking by Weights & Biases
        "mlflow": ["mlflow-skinny", "sqlalchemy", "alembic"],  # MLflow's client; with the latter two, a local database
        "docs": ["mkdocs-material"],
        "tests": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "import-linter",
            "types-PyYAML",
            "types-tqdm",
            "playwright",  # pages in the system's Chromium
            "nbclient",  # notebooks
            "ipykernel",
            "httpx",  # requests to the server
            "schemathesis",  # requests generated from the server's OpenAPI schema
            "sherpa-onnx",  # runs exported models; the wheel -bin has its servers
            "sherpa-onnx-bin",
        ],
        "dev": ["pre-commit", "coverage"],
        "bench": ["kaldi-native-fbank", "sherpa-onnx"],
    },
    entry_points={"console_scripts": ["asrtool=asrtool.cli:main"]},
)
