#!/usr/bin/env bash
# mlflow 3.17: Model.log(run_id=R), with no run active, puts the logged model into experiment 0, not into that of run R.
#
# The model's record names R as its source run, and R's outputs name the model; but the model's experiment is "Default",
# so its files are under the default experiment's artifact location, and the Models page of R's experiment does not show it.
# mlflow.start_run(run_id=R) around the call gives R's experiment, and ends R as FINISHED when it is left.
# MlflowClient.create_logged_model(experiment_id, ...) and Model.log(model_id=...) do neither. Fails when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check mlflow==3.17.0 2>/dev/null
cat >"$work/model.py" <<'PY'
import mlflow

class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, model_input):
        return model_input

mlflow.models.set_model(Echo())
PY
cat >"$work/try.py" <<'PY'
import mlflow
from mlflow import MlflowClient
from mlflow.models import Model

client = MlflowClient()
experiment = client.create_experiment("mine")
run = client.create_run(experiment).info.run_id
arguments = {"artifact_path": None, "flavor": mlflow.pyfunc, "run_id": run, "python_model": "model.py", "pip_requirements": []}

info = Model.log(name="echo", **arguments)
by_run = client.get_logged_model(info.model_id)
made = client.create_logged_model(experiment, name="echo", source_run_id=run)
by_hand = client.get_logged_model(Model.log(model_id=made.model_id, **arguments).model_id)
before = client.get_run(run).info.status
with mlflow.start_run(run_id=run):
    pass
print(by_run.source_run_id == run, by_run.experiment_id, by_hand.experiment_id == experiment, before, client.get_run(run).info.status)
PY
cd "$work"
export MLFLOW_TRACKING_URI="sqlite:///$work/mlflow.db" MLFLOW_DISABLE_TELEMETRY=true
said=$("$work/venv/bin/python" try.py 2>/dev/null | tail -1)
[ "$said" = "True 0 True RUNNING FINISHED" ] || { echo "changed: $said"; exit 1; }
echo "mlflow 3.17.0: a model logged by run_id alone is in experiment 0; by model_id in that of its record; start_run ends the run"
