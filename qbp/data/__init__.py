"""Data sets, split and scaled without a leak from test to train. Nothing is downloaded."""

from qbp.data.conversion import as_dataset
from qbp.data.dataset import Dataset
from qbp.data.loading import DATASETS, REDUCTIONS, SCALES, load, split
from qbp.data.preprocessing import Preprocessing, preprocessing_of
from qbp.data.raw import Raw

__all__ = [
    "DATASETS",
    "REDUCTIONS",
    "SCALES",
    "Dataset",
    "Preprocessing",
    "Raw",
    "as_dataset",
    "load",
    "preprocessing_of",
    "split",
]
