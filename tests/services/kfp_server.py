"""A KFP 2.17 API server in this process: the REST calls that `exact submit` and `exact schedule` make, with state.

It is as strict as the SDK's own models are precise: every request body must have only fields of its model
(`kfp_server_api`), each of the model's type, and every answer is checked in the same way before it is sent. What the
models do not say is as a real 2.17.0 answered (tests/pipelines/kfp_answers; test_kfp_answers.py compares with them):
status codes, words and form of errors, the tasks of a run in each of its states, tokens of pages. Recorded runs can be
played as they are. Deletion takes the runs at work with it unless told to orphan them.

Time does not pass by itself: each GET of a run moves it one state on.
"""

from __future__ import annotations

import base64
import datetime as dt
import email
import email.policy
import json
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kfp_server_api as api
import yaml
from exact_kubeflow.pipelines.cron import Cron

Body = dict[str, Any]
ANSWERS = Path(__file__).parents[1] / "pipelines" / "kfp_answers"
"""What a real KFP 2.17.0 answered, each with its request; packages are cut out."""
NEVER = "1970-01-01T00:00:00Z"
OPEN = "0001-01-01T00:00:00Z"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The same in C, where it has been built: pipelines are long."""
INT64 = {"max_concurrency", "interval_second"}
"""protobuf writes an int64 as text, and reads it as text or number."""
PARAMETER = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
STARTABLE = {
    *("display_name", "description", "experiment_id", "pipeline_version_reference", "runtime_config"),
    "service_account",
}
"""What a run and a recurring run are asked for with."""
OVER = {"SUCCEEDED", "FAILED"}
"""States that a run can end in; a terminated one is FAILED, after CANCELING."""
KINDS = {"NUMBER_INTEGER": ("double or integer", "number"), "NUMBER_DOUBLE": ("double or integer", "number")}
"""How the server calls a type that it asks for, and the value's."""


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, *, inner: str = "", upload: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.inner, self.upload = status, message, inner, upload

    @property
    def body(self) -> Body:
        """As the server writes it; for uploads, which go past its gRPC, in another form."""
        if self.upload:
            return {"error_message": self.message, "error_details": f"{self.message}\n<a stack trace follows>"}
        code = CODES.get(self.status, 2)
        said: Body = {"code": code, "message": self.message}
        if self.message.startswith("proto:"):
            return said
        inner = "Internal Server Error" if code == 13 else self.inner or self.message
        return said | {"details": [{"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": inner}]}


def checked(value: Any, kind: str, where: str) -> Any:
    """`value` if it is what the SDK says of `kind`, recursively; unknown fields and other types are refused."""
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            raise RefusedError(400, f"{where}: expected a list, got {value!r}")
        return [checked(each, match[1], f"{where}[]") for each in value]
    if match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            raise RefusedError(400, f"{where}: expected a mapping, got {value!r}")
        return {name: checked(each, match[1], f"{where}.{name}") for name, each in value.items()}
    if kind == "object":
        return value
    if kind == "datetime":
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", str(value)):
            raise RefusedError(400, f"{where}: {value!r} is not RFC 3339")
        return value
    if kind in ("str", "int", "bool"):
        if where.rpartition(".")[2] in INT64 and isinstance(value, int):
            return str(value)
        if type(value).__name__ != kind:
            raise RefusedError(400, f"{where}: expected {kind}, got {value!r}")
        return value
    model = getattr(api, kind)
    if not model.openapi_types:
        if value not in model.allowable_values:
            raise RefusedError(400, f"{where}: {value!r} is none of {model.allowable_values}")
        return value
    types = {model.attribute_map[name]: each for name, each in model.openapi_types.items()}
    if not isinstance(value, dict):
        raise RefusedError(400, f"{where}: expected {kind}, got {value!r}")
    if unknown := set(value) - set(types):
        raise RefusedError(400, f'proto:\u00a0(line 1:1): unknown field "{sorted(unknown)[0]}"')
    return {name: checked(each, types[name], f"{where}.{name}") for name, each in value.items()}


class KfpServer:
    """The state, and a thread that serves it."""

    def __init__(self) -> None:
        self.tag = "2.17.0"
        self.multi_user = False
        self.ui = False
        """Whether the address is the UI's, which passes the API on and answers /healthz itself."""
        self.token: str | None = None
        self.forbidden = False
        self.page_limit = 200
        self.script = ["PENDING", "RUNNING", "SUCCEEDED"]
        """States that each new run goes through, one a GET; it stays in the last."""
        self.steps: list[dict[str, str | list[str]]] = []
        """Step -> state for each GET, alongside `script`; a list: of each iteration. PENDING waits for a node; DRIVER:
        its driver failed."""
        self.logs: dict[str, str] = {}
        """Argo's identity of a node -> its log."""
        self.log: list[tuple[str, str]] = []
        self.faults: list[tuple[str, str, int, bool]] = []
        self.experiments: dict[str, Body] = {}
        self.pipelines: dict[str, Body] = {}
        self.versions: dict[str, Body] = {}
        self.runs: dict[str, Body] = {}
        self.recurring: dict[str, Body] = {}
        self._left: dict[str, list[tuple[str, dict[str, str | list[str]]]]] = {}
        self._played: set[str] = set()
        self._clock = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
        self._lock = threading.Lock()
        kfp = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are two writes, and the second would wait for the first's acknowledgement.
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with kfp._lock:
                    status, answer = kfp._serve(self.command, self.path, dict(self.headers), body)
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _any  # noqa: N815 - names that http.server looks up

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self.host = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fail(self, times: int, status: int, method: str, path: str, *, after: bool = False) -> None:
        """Answer the next `times` requests that match with an error; `after`: do what they ask, and then fail."""
        self.faults += [(method, path, status, after)] * times

    def calls(self, method: str, path: str) -> int:
        """How many requests of this kind came in."""
        return sum(each == method and re.fullmatch(path, where) is not None for each, where in self.log)

    def _serve(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        path = url.path.removeprefix("/apis/v2beta1")
        self.log.append((method, path))
        try:
            if self.token and headers.get("authorization") != f"Bearer {self.token}":
                raise RefusedError(401, "Request header error: there is no valid user identity in the request header.")
            if self.forbidden and path != "/healthz":
                raise RefusedError(403, "User 'jane' is not authorized with reason: no access to namespace")
            fault = next((each for each in self.faults if each[0] == method and re.fullmatch(each[1], path)), None)
            if fault:
                self.faults.remove(fault)
                if fault[3]:
                    self._answer(method, path, query, headers, body)
                raise RefusedError(fault[2], "Internal Server Error: driver: bad connection")
            return 200, self._answer(method, path, query, headers, body)
        except RefusedError as error:
            return error.status, error.body

    def _answer(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Any:
        if (method, path) == ("GET", "/healthz"):
            health = {"multi_user": self.multi_user, "pipeline_store": "database"}
            checked(health, "V2beta1GetHealthzResponse", "healthz")
            if self.ui:
                return {"apiServerTagName": self.tag, "apiServerMultiUser": self.multi_user, "apiServerReady": True}
            # The model lacks what the server says of its own version.
            return {"commit_sha": "unknown", "tag_name": self.tag, **health}
        if log := re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path):
            self._known(self.runs, log[1], "Run")
            if log[2] not in self.logs:
                raise RefusedError(400, "Failed to read logs from archive")
            return self.logs[log[2]]
        routes: list[tuple[str, str, str, Callable[..., Any]]] = [
            ("GET", "/experiments", "V2beta1ListExperimentsResponse", self._list_experiments),
            ("POST", "/experiments", "V2beta1Experiment", self._create_experiment),
            ("GET", "/experiments/([^/]+)", "V2beta1Experiment", self._get_experiment),
            ("GET", "/pipelines", "V2beta1ListPipelinesResponse", self._list_pipelines),
            ("POST", "/pipelines/upload", "V2beta1Pipeline", self._upload_pipeline),
            ("POST", "/pipelines/upload_version", "V2beta1PipelineVersion", self._upload_version),
            ("GET", "/pipelines/([^/]+)", "V2beta1Pipeline", self._get_pipeline),
            ("GET", "/pipelines/([^/]+)/versions", "V2beta1ListPipelineVersionsResponse", self._list_versions),
            ("GET", "/pipelines/([^/]+)/versions/([^/]+)", "V2beta1PipelineVersion", self._get_version),
            ("GET", "/runs", "V2beta1ListRunsResponse", self._list_runs),
            ("POST", "/runs", "V2beta1Run", self._create_run),
            ("GET", "/runs/([^/]+)", "V2beta1Run", self._get_run),
            ("GET", "/recurringruns", "V2beta1ListRecurringRunsResponse", self._list_recurring),
            ("POST", "/recurringruns", "V2beta1RecurringRun", self._create_recurring),
            ("DELETE", "/recurringruns/([^/]+)", "object", self._delete_recurring),
        ]
        for verb, pattern, kind, handle in routes:
            match = re.fullmatch(pattern, path)
            if match and verb == method:
                given = (query, headers, body) if method == "POST" else (query,)
                return checked(handle(*match.groups(), *given), kind, kind)
        raise RefusedError(404, f"Not Found: {method} {path}")

    # Experiments

    def _list_experiments(self, query: dict[str, str]) -> Body:
        return self._page("experiments", self._in_namespace(self.experiments, query), query)

    def _create_experiment(self, _: dict[str, str], __: dict[str, str], body: bytes) -> Body:
        wanted = checked(json.loads(body), "V2beta1Experiment", "experiment")
        self._only(wanted, {"display_name", "description", "namespace"})
        if self.multi_user and not wanted.get("namespace"):
            raise RefusedError(400, "Invalid input error: Experiment has no namespace")
        if any(each["display_name"] == wanted["display_name"] for each in self.experiments.values()):
            inner = (
                f"Failed to create a new experiment. The name {wanted['display_name']} already exists. Please specify "
                f"a new name"
            )
            raise RefusedError(409, f"Failed to create a experiment: Already exist error: {inner}", inner=inner)
        return self._new(self.experiments, "experiment_id", {**wanted, "storage_state": "AVAILABLE"})

    def _get_experiment(self, identity: str, _: dict[str, str]) -> Body:
        return self._known(self.experiments, identity, "Experiment")

    # Pipelines

    def _list_pipelines(self, query: dict[str, str]) -> Body:
        return self._page("pipelines", self._in_namespace(self.pipelines, query), query)

    def _upload_pipeline(self, query: dict[str, str], headers: dict[str, str], body: bytes) -> Body:
        spec = self._uploaded(headers, body)
        self._only(query, {"name", "display_name", "description", "namespace"})
        if any(each["display_name"] == query["name"] for each in self.pipelines.values()):
            raise RefusedError(409, "Failed to create a pipeline and a pipeline version", upload=True)
        named = {"display_name": query["name"], "name": query["name"]}
        made = self._new(self.pipelines, "pipeline_id", named | _said(query, "description"))
        # As the real one: the first upload becomes a version of the pipeline's own name.
        self._add_version(made["pipeline_id"], query["name"], spec, {})
        return made

    def _upload_version(self, query: dict[str, str], headers: dict[str, str], body: bytes) -> Body:
        spec = self._uploaded(headers, body)
        self._only(query, {"name", "display_name", "pipelineid", "description"})
        self._known(self.pipelines, query["pipelineid"], "Pipeline")
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", query["name"]):
            raise RefusedError(400, "Failed to create a pipeline version", upload=True)
        if any(
            (each["pipeline_id"], each["display_name"]) == (query["pipelineid"], query["name"])
            for each in self.versions.values()
        ):
            raise RefusedError(409, "Failed to create a pipeline version", upload=True)
        return self._add_version(query["pipelineid"], query["name"], spec, _said(query, "description"))

    def _add_version(self, pipeline_id: str, name: str, spec: Body, extra: Body) -> Body:
        entry = {"pipeline_id": pipeline_id, "display_name": name, "name": name, **extra, "pipeline_spec": spec}
        return self._new(self.versions, "pipeline_version_id", entry)

    def _uploaded(self, headers: dict[str, str], body: bytes) -> Body:
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        (part,) = email.message_from_bytes(head + body, policy=email.policy.HTTP).iter_parts()
        if part.get_param("name", header="content-disposition") != "uploadfile":
            raise RefusedError(400, "Failed to read pipeline from file: http: no such file")
        parts = list(yaml.load_all(part.get_payload(decode=True), LOADER))
        if not isinstance(parts[0], dict) or not {"pipelineInfo", "root", "deploymentSpec", "schemaVersion"} <= set(
            parts[0]
        ):
            raise RefusedError(400, "unknown template format", upload=True)
        return parts[0] if len(parts) == 1 else {"pipeline_spec": parts[0], "platform_spec": parts[1]}

    def _get_pipeline(self, identity: str, _: dict[str, str]) -> Body:
        return self._known(self.pipelines, identity, "Pipeline")

    def _list_versions(self, pipeline_id: str, query: dict[str, str]) -> Body:
        self._known(self.pipelines, pipeline_id, "Pipeline")
        mine = [each for each in self.versions.values() if each["pipeline_id"] == pipeline_id]
        return self._page("pipeline_versions", mine, query)

    def _get_version(self, pipeline_id: str, identity: str, _: dict[str, str]) -> Body:
        found = self._known(self.versions, identity, "PipelineVersion")
        if found["pipeline_id"] != pipeline_id:
            self._known({}, identity, "PipelineVersion")
        return found

    # Runs

    def _list_runs(self, query: dict[str, str]) -> Body:
        mine = self._in_namespace(self.runs, query)
        if "experiment_id" in query:
            mine = [each for each in mine if each["experiment_id"] == query["experiment_id"]]
        return self._page("runs", mine, query)

    def _create_run(self, _: dict[str, str], __: dict[str, str], body: bytes) -> Body:
        wanted = checked(json.loads(body), "V2beta1Run", "run")
        self._only(wanted, STARTABLE)
        self._startable(wanted)
        return self.add_run(self._with_account(wanted))

    def add_run(self, wanted: Body, *, script: list[str] | None = None) -> Body:
        """Start a run, as a request or as a recurring run does it."""
        extra = {"storage_state": "AVAILABLE", "scheduled_at": wanted.get("scheduled_at", self._time(0))}
        script = script or self.script
        if not wanted.get("runtime_config", {}).get("parameters"):
            wanted = {key: value for key, value in wanted.items() if key != "runtime_config"}
        made = self._new(self.runs, "run_id", {**wanted, **extra, "finished_at": NEVER, "state": script[0]})
        made["state_history"] = [{"update_time": self._time(0), "state": script[0]}]
        steps = self.steps or [{}]
        self._left[made["run_id"]] = [
            (state, steps[min(number, len(steps) - 1)]) for number, state in enumerate(script)
        ]
        return made

    def play(self, name: str, *, steps: list[str]) -> Body:
        """A run as a real server answered it: the file's name in ANSWERS, and the steps of its pipeline."""
        run = json.loads((ANSWERS / f"{name}.json").read_text())["answer"]
        tasks = {step: {"componentRef": {"name": step}} for step in steps}
        # The package is not in the recording.
        run["pipeline_spec"] = {"root": {"dag": {"tasks": tasks}}, "components": {step: {} for step in steps}}
        self.runs[run["run_id"]] = run
        self._played.add(run["run_id"])
        return run

    def _get_run(self, identity: str, _: dict[str, str]) -> Body:
        run = self._known(self.runs, identity, "Run")
        if identity in self._played:
            return run
        left = self._left[identity]
        state, steps = left.pop(0) if len(left) > 1 else left[0]
        run["state"] = state
        if run["state_history"][-1]["state"] != state:
            run["state_history"].append({"update_time": self._time(0), "state": state})
        run["run_details"] = {"task_details": self._tasks(run, steps)}
        if state in OVER:
            run["finished_at"] = self._time(99)
        return run

    def node(self, run_id: str, name: str) -> str:
        """Argo's identity of a node, by its name below the root: preflight(0).executor(0)."""
        return _node(self._workflow(run_id), f"{self._workflow(run_id)}(0).root(0).{name}")

    def _workflow(self, run_id: str) -> str:
        return f"pipeline-{run_id[:5]}"

    def _tasks(self, run: Body, steps: dict[str, str | list[str]]) -> list[Body]:
        """The nodes behind a run: under stock defaults each has a wrapper for its tries, as the workflow itself has."""
        workflow, over = self._workflow(run["run_id"]), run["state"] in OVER
        nodes: dict[str, str | None] = {}

        def tried(name: str, state: str | None, pod: str | None = None) -> str:
            nodes[name] = state
            if state is not None:
                nodes[f"{name}(0)"] = pod or state
            return f"{name}(0)"

        whole = run["state"] if over else "RUNNING"
        root = tried(workflow, whole)
        tried(f"{root}.root-driver", "SUCCEEDED")
        root = tried(f"{root}.root", whole)
        for step, at in steps.items():
            scopes = [root]
            if isinstance(at, list):
                open_, bad = {"RUNNING", "PENDING"} & set(at), {"FAILED", "DRIVER"} & set(at)
                group = "RUNNING" if open_ else "FAILED" if bad else "SUCCEEDED"
                loop = tried(f"{root}.for-loop-1", group)
                tried(f"{root}.for-loop-1-driver", "SUCCEEDED")
                nodes[f"{loop}.iteration-iterations"] = group
                scopes = [tried(f"{loop}.iteration-iterations({n}:{n})", group) for n in range(len(at))]
            for scope, state in zip(scopes, at if isinstance(at, list) else [at], strict=True):
                tried(f"{scope}.{step}-driver", "FAILED" if state == "DRIVER" else "SUCCEEDED")
                known = None if state == "DRIVER" else "RUNNING" if state == "PENDING" else state
                inner = tried(f"{scope}.{step}", known)
                if known:
                    tried(f"{inner}.executor", known, pod=state)
        made = []
        for number, (name, state) in enumerate(nodes.items()):
            ended = state not in ("RUNNING", "PENDING")
            children = [_node(workflow, other) for other in nodes if other != name and _parent(other) == name]
            made.append(
                {
                    "run_id": run["run_id"],
                    "task_id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
                    "display_name": _display(name),
                    "create_time": run["created_at"],
                    "start_time": self._time(number),
                    "end_time": self._time(number + 1) if ended else OPEN,
                    **({"state": state} if state else {}),
                    "state_history": [{"update_time": self._time(number), **({"state": state} if state else {})}],
                    **({"child_tasks": [{"pod_name": child} for child in children]} if children else {}),
                }
            )
        return made

    # Recurring runs

    def _list_recurring(self, query: dict[str, str]) -> Body:
        return self._page("recurringRuns", self._in_namespace(self.recurring, query), query)

    def _create_recurring(self, _: dict[str, str], __: dict[str, str], body: bytes) -> Body:
        wanted = checked(json.loads(body), "V2beta1RecurringRun", "recurring_run")
        self._only(wanted, STARTABLE | {"trigger", "mode", "max_concurrency", "no_catchup"})
        self._startable(wanted)
        if not 1 <= int(wanted.get("max_concurrency", 0)) <= 10:
            raise _recurring(
                "Max concurrency of a recurring run must be at least 1 and at most 10. "
                f"Received {wanted.get('max_concurrency', 0)}"
            )
        trigger = wanted.get("trigger", {})
        if len(trigger) != 1:
            raise RefusedError(400, "Invalid input error: one of cron_schedule and periodic_schedule")
        if "cron_schedule" in trigger:
            _check_cron(trigger["cron_schedule"]["cron"])
        if "periodic_schedule" in trigger and int(trigger["periodic_schedule"]["interval_second"]) < 1:
            raise RefusedError(400, "Invalid input error: Found invalid period schedule interval")
        status = "ENABLED" if wanted["mode"] == "ENABLE" else "DISABLED"
        extra = {"status": status, "namespace": "kubeflow", "updated_at": self._time(1)}
        return self._new(self.recurring, "recurring_run_id", {**self._with_account(wanted), **extra})

    def _delete_recurring(self, identity: str, query: dict[str, str]) -> Body:
        self._only(query, {"propagation_policy"})
        self._known(self.recurring, identity, "RecurringRun")
        policy = query.get("propagation_policy", "BACKGROUND")
        checked(policy, "V2beta1DeletePropagationPolicy", "propagation_policy")
        del self.recurring[identity]
        if policy != "ORPHAN":
            for run in self.runs.values():
                if run.get("recurring_run_id") == identity and run["state"] not in OVER:
                    self._left[run["run_id"]] = [("FAILED", {})]
                    run["state"] = "FAILED"
        return {}

    def start_slots(self, identity: str, *, since: dt.datetime, now: dt.datetime) -> list[Body]:
        """The runs that the schedule controller would start of a recurring run that was last looked at `since`.

        With catch-up a run for every slot that has come, without it for the latest; at most so many at a time as
        `max_concurrency` allows, the others' turn comes at the next look.
        """
        recurring = self.recurring[identity]
        cron, slots = Cron.parse(recurring["trigger"]["cron_schedule"]["cron"]), []
        slot = cron.next_after(since)
        while slot is not None and slot <= now:
            slots.append(slot)
            slot = cron.next_after(slot)
        wanted = {key: recurring[key] for key in ("experiment_id", "pipeline_version_reference", "runtime_config")}
        mine = [run for run in self.runs.values() if run.get("recurring_run_id") == identity]
        free = int(recurring["max_concurrency"]) - sum(run["state"] not in OVER for run in mine)
        chosen = slots[-1:] if recurring.get("no_catchup") else slots
        started = {run["scheduled_at"] for run in mine}
        return [
            self.add_run(
                {
                    **wanted,
                    "display_name": f"{recurring['display_name']}-{slot:%Y%m%dT%H%M%S}",
                    "recurring_run_id": identity,
                    "scheduled_at": _rfc3339(slot),
                }
            )
            for slot in [each for each in chosen if _rfc3339(each) not in started][:free]
        ]

    # What they share

    def _with_account(self, wanted: Body) -> Body:
        """Without an account, the server's own: it is filled in and shown from then on."""
        default = "default-editor" if self.multi_user else "pipeline-runner"
        return {**wanted, "service_account": wanted.get("service_account") or default}

    def _startable(self, wanted: Body) -> None:
        """An experiment, a version and the parameters that it takes."""
        if not wanted.get("display_name"):
            raise RefusedError(400, "Invalid input error: display_name is empty")
        if (experiment := wanted.get("experiment_id", "")) not in self.experiments:
            raise RefusedError(
                404,
                "Failed to create a new run: Failed to create a run due to invalid experimentId and namespace "
                f"combination: Failed to fetch namespace for experiment {experiment}: Failed to fetch namespace from "
                f"experiment {experiment}: ResourceNotFoundError: Experiment {experiment} not found",
                inner=f"Experiment {experiment} not found",
            )
        wanted_version = wanted.get("pipeline_version_reference", {}).get("pipeline_version_id", "")
        if wanted_version not in self.versions:
            raise RefusedError(
                500,
                "Failed to create a new run: InternalServerError: Failed to create a run due to error fetching "
                "manifest: Failed to fetch a template due to error retrieving pipeline version: Failed to fetch a "
                f"pipeline version and its manifest from pipeline version {wanted_version}: Failed to get a pipeline "
                f"version with id "
                f"{wanted_version}: ResourceNotFoundError: PipelineVersion {wanted_version} not found",
            )
        spec = self.versions[wanted_version]["pipeline_spec"]
        inputs = spec.get("pipeline_spec", spec)["root"].get("inputDefinitions", {}).get("parameters", {})
        given = wanted.get("runtime_config", {}).get("parameters", {})
        for name, value in given.items():
            if name not in inputs:
                raise _inputs(f"parameter(s) provided are not required by pipeline: {name}")
            kind = inputs[name]["parameterType"]
            if not isinstance(value, PARAMETER[kind]):
                asked, got = KINDS.get(kind, (kind.lower(), kind.lower()))
                raise _inputs(
                    f"input parameter {name} requires type {asked}, but the parameter value is not of {got} value type"
                )
        for name, spec in inputs.items():
            if name not in given and "defaultValue" not in spec and not spec.get("isOptional"):
                raise RefusedError(400, f"Invalid input error: parameter {name} is not optional, yet has neither")

    def _page(self, field: str, entries: list[Body], query: dict[str, str]) -> Body:
        self._only(query, {"page_token", "page_size", "sort_by", "filter", "namespace", "experiment_id"})
        wanted = json.loads(query["filter"]) if query.get("filter") else {"predicates": []}
        if unknown := set(wanted) - {"predicates"}:
            text = query["filter"].replace('"', '\\"')
            raise _listing(
                f'failed to parse valid filter from "{text}": proto:\u00a0(line 1:2): unknown field '
                f'"{sorted(unknown)[0]}"'
            )
        for predicate in wanted["predicates"]:
            checked(predicate, "V2beta1Predicate", "filter")
            if (predicate["operation"], predicate["key"]) != ("EQUALS", "display_name"):
                raise RefusedError(400, f"Invalid input error: filter {predicate}")
            entries = [each for each in entries if each["display_name"] == predicate["string_value"]]
        if query.get("sort_by", "") not in ("", "name", "created_at desc"):
            raise RefusedError(400, f"Invalid input error: sort_by {query['sort_by']}")
        entries = sorted(entries, key=lambda each: each["created_at"], reverse=bool(query.get("sort_by")))
        if int(query.get("page_size") or 20) < 0:
            raise _listing(f"The page size should be greater than 0. Got {query['page_size']}")
        # Opaque, and good for the same order and filter only.
        asked = [query.get("sort_by", ""), query.get("filter", "")]
        first = 0
        if token := query.get("page_token"):
            first, *of = json.loads(base64.b64decode(token))
            if of != asked:
                raise _listing(
                    "page token does not match the supplied sort by and/or filtering criteria. Either specify the same "
                    "criteria or leave the latter empty if page token is specified"
                )
        last = first + min(int(query.get("page_size") or 20), self.page_limit)
        page: Body = {"total_size": len(entries)}
        # Empty fields are left out, as protobuf does.
        if entries[first:last]:
            page[field] = entries[first:last]
        if last < len(entries):
            page["next_page_token"] = base64.b64encode(json.dumps([last, *asked]).encode()).decode()
        return page

    def _in_namespace(self, entries: dict[str, Body], query: dict[str, str]) -> list[Body]:
        if self.multi_user and not (query.get("namespace") or query.get("experiment_id")):
            raise RefusedError(400, "Invalid input error: A request must specify a namespace in multi-user mode")
        return list(entries.values())

    def _known(self, entries: dict[str, Body], identity: str, kind: str) -> Body:
        if identity not in entries:
            lower, inner = kind.lower(), f"{kind} {identity} not found"
            raise RefusedError(
                404,
                f"Failed to get a {lower}: Failed to fetch {lower} {identity}: ResourceNotFoundError: {inner}",
                inner=inner,
            )
        return entries[identity]

    def _only(self, given: Body, allowed: set[str]) -> None:
        if unknown := set(given) - allowed:
            raise RefusedError(400, f"the test server does not know {sorted(unknown)} here")

    def _new(self, entries: dict[str, Body], key: str, entry: Body) -> Body:
        self._clock += dt.timedelta(seconds=1)
        identity = str(uuid.uuid4())
        entries[identity] = {**entry, key: identity, "created_at": self._time(0)}
        return entries[identity]

    def _time(self, seconds: int) -> str:
        return f"{self._clock + dt.timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def _rfc3339(moment: dt.datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _said(query: dict[str, str], *names: str) -> Body:
    return {name: query[name] for name in names if query.get(name)}


def _inputs(inner: str) -> RefusedError:
    return RefusedError(
        400,
        "Failed to create a new run: Failed to generate the ExecutionSpec: invalid pipeline job inputs: "
        f"Invalid input error: {inner}",
        inner=inner,
    )


def _recurring(inner: str) -> RefusedError:
    outer = "Failed to create a recurring run due to conversion error: Invalid input error: "
    return RefusedError(400, f"{outer}{inner}", inner=inner)


def _listing(inner: str) -> RefusedError:
    return RefusedError(400, f"Failed to create list options: Invalid input error: {inner}", inner=inner)


def _check_cron(expression: str) -> None:
    """As its parser: five fields are taken for seconds to month."""
    fields, wrong = expression.split(), ""
    if not 5 <= len(fields) <= 6:
        wrong = f"Expected 5 to 6 fields, found {len(fields)}: {expression}"
    for field, limit in zip(fields, (59, 59, 23, 31, 12, 6), strict=False):
        for number in re.findall(r"(?<!/)\b\d+", field):
            if not wrong and int(number) > limit:
                wrong = f"End of range ({number}) above maximum ({limit}): {field}"
    if wrong:
        raise _recurring(
            f"Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). Error: {wrong}"
        )


def _node(workflow: str, name: str) -> str:
    """Argo's identity of a node: FNV-1a of its name."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) % 2**32
    return workflow if name == workflow else f"{workflow}-{value}"


def _display(name: str) -> str:
    return name.rpartition(".")[2]


def _parent(name: str) -> str:
    """The node that a node is a child of: its tries' wrapper, its driver, or the group it is in."""
    if re.search(r"[^:]\(\d+\)$", name):
        return re.sub(r"\(\d+\)$", "", name)
    scope, _, display = name.rpartition(".")
    if display.endswith("-driver") or display == "executor" or display.startswith("iteration-iterations("):
        return f"{scope}.iteration-iterations" if display.startswith("iteration-iterations(") else scope
    return f"{scope}.{display}-driver(0)" if scope and display != "iteration-iterations" else scope
