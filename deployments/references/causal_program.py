"""What linearmodels and scikit-uplift say of some rows: `python causal_program.py IN.json OUT.json`.

It runs in an environment of its own and knows nothing of the platform. IN holds `instruments` (outcome, exposures,
controls, instruments, clusters: rows of numbers) and `uplift` (outcome 0/1, score, treated 0/1); OUT what the libraries
find, and their versions.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("linearmodels", "scikit-uplift", "numpy")


def instruments(given: dict[str, list[Any]]) -> dict[str, Any]:
    """Two-stage least squares in its kinds of errors, with the tests that linearmodels has."""
    from linearmodels.iv import IV2SLS

    y, x, w, z = (np.asarray(given[key]) for key in ("outcome", "exposures", "controls", "instruments"))
    model = IV2SLS(y, w, x, z)
    order = [*range(w.shape[1], w.shape[1] + x.shape[1]), *range(w.shape[1])]  # exposures first
    fits = {
        "robust": model.fit(cov_type="robust"),
        "robust_small": model.fit(cov_type="robust", debiased=True),
        "plain": model.fit(cov_type="unadjusted"),
        "clustered": model.fit(cov_type="clustered", clusters=np.asarray(given["clusters"])),
    }
    robust = fits["robust"]
    first = robust.first_stage.diagnostics
    plain = model.fit(cov_type="unadjusted", debiased=True).first_stage.diagnostics
    found = {
        "coefficients": robust.params.to_numpy()[order].tolist(),
        "covariances": {name: fit.cov.to_numpy()[np.ix_(order, order)].tolist() for name, fit in fits.items()},
        "robust_wald": first["f.stat"].astype(float).tolist(),
        "clustered_wald": fits["clustered"].first_stage.diagnostics["f.stat"].astype(float).tolist(),
        "plain_f": plain["f.stat"].astype(float).tolist(),
        "partial_r_squared": first["partial.rsquared"].astype(float).tolist(),
        "wu_hausman": robust.wu_hausman().stat,
        "wooldridge": robust.wooldridge_regression.stat,
    }
    if z.shape[1] > x.shape[1]:
        found["sargan"] = robust.sargan.stat
    return found


def uplift(given: dict[str, list[Any]]) -> dict[str, Any]:
    """Curves and coefficients of the scores."""
    from sklift.metrics import qini_auc_score, qini_curve, uplift_auc_score, uplift_curve

    y, score, treated = (np.asarray(given[key]) for key in ("outcome", "score", "treated"))
    return {
        "qini": qini_auc_score(y, score, treated),
        "auuc": uplift_auc_score(y, score, treated),
        "qini_curve": [part.tolist() for part in qini_curve(y, score, treated)],
        "uplift_curve": [part.tolist() for part in uplift_curve(y, score, treated)],
    }


def main(source: Path, target: Path) -> None:
    """Answer what the file asks for."""
    warnings.simplefilter("ignore")
    given = json.loads(source.read_text())
    found: dict[str, Any] = {"versions": {name: importlib.metadata.version(name) for name in PACKAGES}}
    if "instruments" in given:
        found["instruments"] = instruments(given["instruments"])
    if "uplift" in given:
        found["uplift"] = uplift(given["uplift"])
    target.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
