"""What each row of a comparison holds."""

from __future__ import annotations

__all__ = ["COLUMNS"]

# The columns of a row, in order, with their type: one row for each cell (data set, model, seed, rows to train on).
COLUMNS: dict[str, type] = {
    "dataset": str,
    "split": str,  # SHA-256 of the train part and the test part
    "seed": int,  # of the split, the initial weights and the order of the rows, for every model
    "model": str,  # "hybrid"; a control of it is "hybrid/frozen"; a control of all is "svm_rbf"
    "subject": str,  # the model that it is a control of, or it itself; "" for a control of all
    "role": str,  # "subject", or the name of the control
    "n_train": int,
    "n_test": int,
    "overlap": float,  # share of the rows to test that are also among those to train on
    "accuracy": float,  # of labels, as what follows down to `confusion`; None of targets
    "balanced_accuracy": float,
    "f1": float,  # mean over classes
    "log_loss": float,  # None where the model gives no probabilities
    "brier": float,  # likewise; mean over rows of the squared error of the probabilities, summed over classes
    "ece": float,  # likewise; how far confidence is from accuracy, over 15 bins (arXiv 1706.04599)
    "auc": float,  # one against the rest, mean over classes
    "confusion": str,  # JSON: counts, row = true class, column = predicted class
    "r2": float,  # of targets, as the next two; None of labels
    "rmse": float,  # mean over columns of the root mean squared error, in the unit of the targets
    "mae": float,  # mean absolute error
    "score_error": float,  # standard error of the metric that is compared by the shots of the circuits; 0 where exact
    "score_bias": float,  # how far what a simulation of the circuits left out may have moved it; 0 where nothing was
    "cv_score": float,  # in the metric that is compared, of the configuration chosen, mean over folds of the train part
    "train_seconds": float,  # of the last fit, with the configuration chosen
    "tune_seconds": float,
    "n_parameters": int,  # that training changes; of scikit-learn's models the numbers that they keep
    "n_gates": int,
    "two_qubit_gates": int,
    "circuits_per_step": int,  # by the parameter-shift rule, for one batch
    "multiply_adds": int,  # of one row forward, the circuit simulated
    "narrowest": int,  # neurons of the narrowest hidden layer; None without one
    "quantum_seconds": float,  # that training would take on a device: 1,000 shots of 250 microseconds a circuit
    "epochs": int,
    "converged": bool,
    "together": int,  # models that trained at once
    "feature_scale": float,  # largest mean or standard deviation of a feature or target of the train part, as given
    "hyperparameters": str,  # JSON: the configuration chosen
    "tried": str,  # JSON: of every configuration what `cv_score` is of the chosen one, in the order of the budget
    "truncation": float,  # of a classical twin: how far outputs of its circuits may be off; 0 where they are exact
    "same_labels": float,  # of a classical twin: share of the rows to test of which it says the same; see `cell.SAME`
}
