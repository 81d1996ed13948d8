"""A KFP 2.17 API server in this process: the REST calls that `exact submit` and `exact schedule` make, with state.

It is as strict as the SDK's own models are precise: every request body must have only fields of its model
(`kfp_server_api`), each of the model's type, and every answer is checked in the same way before it is sent. What the
models do not say follows the server's source (kubeflow/pipelines, backend/src/apiserver): status codes and the form of
errors, names that must be unique, parameters checked against the uploaded pipeline, int64 as text, lists in pages,
deletion that takes the runs at work with it unless told to orphan them.

Time does not pass by itself: each GET of a run moves it one state on.
"""

from __future__ import annotations

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
from typing import Any

import kfp_server_api as api
import yaml

Body = dict[str, Any]
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
OVER = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


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
        raise RefusedError(400, f'{where}: unknown field "{sorted(unknown)[0]}" of {kind}')
    return {name: checked(each, types[name], f"{where}.{name}") for name, each in value.items()}


class KfpServer:
    """The state, and a thread that serves it."""

    def __init__(self) -> None:
        self.tag = "2.17.0"
        self.multi_user = False
        self.token: str | None = None
        self.forbidden = False
        self.page_limit = 200
        self.script = ["PENDING", "RUNNING", "SUCCEEDED"]
        """States that each new run goes through, one a GET; it stays in the last."""
        self.steps: list[dict[str, str]] = []
        """Step -> state for each GET, alongside `script`."""
        self.error = ""
        self.log: list[tuple[str, str]] = []
        self.faults: list[tuple[str, str, int, bool]] = []
        self.experiments: dict[str, Body] = {}
        self.pipelines: dict[str, Body] = {}
        self.versions: dict[str, Body] = {}
        self.runs: dict[str, Body] = {}
        self.recurring: dict[str, Body] = {}
        self._left: dict[str, list[tuple[str, dict[str, str]]]] = {}
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
                data = json.dumps(answer).encode()
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
            return error.status, {"code": CODES.get(error.status, 2), "message": error.message, "details": []}

    def _answer(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Any:
        if (method, path) == ("GET", "/healthz"):
            health = {"multi_user": self.multi_user, "pipeline_store": "database"}
            checked(health, "V2beta1GetHealthzResponse", "healthz")
            # The model lacks what the server says of its own version.
            return {"commit_sha": "unknown", "tag_name": self.tag, **health}
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
            raise RefusedError(409, f"Already exist error: experiment {wanted['display_name']}")
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
            raise RefusedError(409, f"Already exist error: pipeline {query['name']}")
        made = self._new(self.pipelines, "pipeline_id", {"display_name": query["name"], "name": query["name"]})
        # As the real one: the first upload becomes a version of the pipeline's own name.
        self._add_version(made["pipeline_id"], query["name"], spec)
        return made

    def _upload_version(self, query: dict[str, str], headers: dict[str, str], body: bytes) -> Body:
        spec = self._uploaded(headers, body)
        self._only(query, {"name", "display_name", "pipelineid", "description"})
        self._known(self.pipelines, query["pipelineid"], "Pipeline")
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", query["name"]):
            raise RefusedError(400, f"Invalid input error: {query['name']!r} is no Kubernetes name")
        if any(
            (each["pipeline_id"], each["display_name"]) == (query["pipelineid"], query["name"])
            for each in self.versions.values()
        ):
            raise RefusedError(409, f"Already exist error: pipeline version {query['name']}")
        return self._add_version(query["pipelineid"], query["name"], spec)

    def _add_version(self, pipeline_id: str, name: str, spec: Body) -> Body:
        entry = {"pipeline_id": pipeline_id, "display_name": name, "name": name, "pipeline_spec": spec}
        return self._new(self.versions, "pipeline_version_id", entry)

    def _uploaded(self, headers: dict[str, str], body: bytes) -> Body:
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        (part,) = email.message_from_bytes(head + body, policy=email.policy.HTTP).iter_parts()
        if part.get_param("name", header="content-disposition") != "uploadfile":
            raise RefusedError(400, "Failed to read pipeline from file: http: no such file")
        spec = next(yaml.load_all(part.get_payload(decode=True), LOADER))
        if not {"pipelineInfo", "root", "deploymentSpec", "schemaVersion"} <= set(spec):
            raise RefusedError(400, "Invalid input error: unknown template format: pipeline spec is invalid")
        return spec

    def _get_pipeline(self, identity: str, _: dict[str, str]) -> Body:
        return self._known(self.pipelines, identity, "Pipeline")

    def _list_versions(self, pipeline_id: str, query: dict[str, str]) -> Body:
        self._known(self.pipelines, pipeline_id, "Pipeline")
        mine = [each for each in self.versions.values() if each["pipeline_id"] == pipeline_id]
        return self._page("pipeline_versions", mine, query)

    def _get_version(self, pipeline_id: str, identity: str, _: dict[str, str]) -> Body:
        found = self._known(self.versions, identity, "PipelineVersion")
        if found["pipeline_id"] != pipeline_id:
            raise RefusedError(404, f"ResourceNotFoundError: PipelineVersion {identity} not found.")
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
        made = self._new(self.runs, "run_id", {**wanted, **extra, "state": script[0]})
        steps = self.steps or [{}]
        self._left[made["run_id"]] = [
            (state, steps[min(number, len(steps) - 1)]) for number, state in enumerate(script)
        ]
        return made

    def _get_run(self, identity: str, _: dict[str, str]) -> Body:
        run = self._known(self.runs, identity, "Run")
        left = self._left[identity]
        state, steps = left.pop(0) if len(left) > 1 else left[0]
        run["state"] = state
        # The server lists the whole and each step's driver too.
        tasks = [{"display_name": "root", "state": state}]
        for number, (step, at) in enumerate(steps.items()):
            error = {"error": {"code": 2, "message": self.error}} if at == "FAILED" and self.error else {}
            tasks.append({"display_name": f"{step}-driver", "state": "SUCCEEDED"})
            tasks.append({"display_name": step, "state": at, "start_time": self._time(number), **error})
        run["run_details"] = {"task_details": tasks}
        if state == "FAILED":
            run["error"] = {"code": 2, "message": "the run failed"}
        if state in OVER:
            run["finished_at"] = self._time(99)
        return run

    # Recurring runs

    def _list_recurring(self, query: dict[str, str]) -> Body:
        return self._page("recurringRuns", self._in_namespace(self.recurring, query), query)

    def _create_recurring(self, _: dict[str, str], __: dict[str, str], body: bytes) -> Body:
        wanted = checked(json.loads(body), "V2beta1RecurringRun", "recurring_run")
        self._only(wanted, STARTABLE | {"trigger", "mode", "max_concurrency", "no_catchup"})
        self._startable(wanted)
        if not 1 <= int(wanted.get("max_concurrency", 0)) <= 10:
            raise RefusedError(
                400, "Invalid input error: The max concurrency of the job is out of range. Support 1-10."
            )
        trigger = wanted.get("trigger", {})
        if len(trigger) != 1:
            raise RefusedError(400, "Invalid input error: one of cron_schedule and periodic_schedule")
        # As its scheduler: five fields are taken for seconds to month.
        if "cron_schedule" in trigger and len(trigger["cron_schedule"]["cron"].split()) not in (5, 6):
            raise RefusedError(400, "Invalid input error: Schedule cron is not a supported format")
        if "periodic_schedule" in trigger and int(trigger["periodic_schedule"]["interval_second"]) < 1:
            raise RefusedError(400, "Invalid input error: Found invalid period schedule interval")
        status = "ENABLED" if wanted["mode"] == "ENABLE" else "DISABLED"
        return self._new(self.recurring, "recurring_run_id", {**self._with_account(wanted), "status": status})

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

    # What they share

    def _with_account(self, wanted: Body) -> Body:
        """Without an account, the server's own: it is filled in and shown from then on."""
        default = "default-editor" if self.multi_user else "pipeline-runner"
        return {**wanted, "service_account": wanted.get("service_account") or default}

    def _startable(self, wanted: Body) -> None:
        """An experiment, a version and the parameters that it takes."""
        if not wanted.get("display_name"):
            raise RefusedError(400, "Invalid input error: display_name is empty")
        self._known(self.experiments, wanted.get("experiment_id", ""), "Experiment")
        reference = wanted.get("pipeline_version_reference", {})
        version = self._get_version(reference.get("pipeline_id", ""), reference.get("pipeline_version_id", ""), {})
        inputs = version["pipeline_spec"]["root"].get("inputDefinitions", {}).get("parameters", {})
        given = wanted.get("runtime_config", {}).get("parameters", {})
        for name, value in given.items():
            if name not in inputs:
                raise RefusedError(400, f"Invalid input error: parameter {name} is not in the pipeline's inputs")
            if not isinstance(value, PARAMETER[inputs[name]["parameterType"]]):
                raise RefusedError(
                    400, f"Invalid input error: parameter {name} requires {inputs[name]['parameterType']}"
                )
        for name, spec in inputs.items():
            if name not in given and "defaultValue" not in spec and not spec.get("isOptional"):
                raise RefusedError(400, f"Invalid input error: parameter {name} is not optional, yet has neither")

    def _page(self, field: str, entries: list[Body], query: dict[str, str]) -> Body:
        self._only(query, {"page_token", "page_size", "sort_by", "filter", "namespace", "experiment_id"})
        for predicate in json.loads(query["filter"])["predicates"] if query.get("filter") else []:
            checked(predicate, "V2beta1Predicate", "filter")
            if (predicate["operation"], predicate["key"]) != ("EQUALS", "display_name"):
                raise RefusedError(400, f"Invalid input error: filter {predicate}")
            entries = [each for each in entries if each["display_name"] == predicate["string_value"]]
        if query.get("sort_by", "") not in ("", "created_at desc"):
            raise RefusedError(400, f"Invalid input error: sort_by {query['sort_by']}")
        entries = sorted(entries, key=lambda each: each["created_at"], reverse=bool(query.get("sort_by")))
        first = int(query.get("page_token") or 0)
        last = first + min(int(query.get("page_size") or 20), self.page_limit)
        page: Body = {"total_size": len(entries)}
        # Empty fields are left out, as protobuf does.
        if entries[first:last]:
            page[field] = entries[first:last]
        if last < len(entries):
            page["next_page_token"] = str(last)
        return page

    def _in_namespace(self, entries: dict[str, Body], query: dict[str, str]) -> list[Body]:
        if self.multi_user and not (query.get("namespace") or query.get("experiment_id")):
            raise RefusedError(400, "Invalid input error: A request must specify a namespace in multi-user mode")
        return list(entries.values())

    def _known(self, entries: dict[str, Body], identity: str, kind: str) -> Body:
        if identity not in entries:
            raise RefusedError(404, f"ResourceNotFoundError: {kind} {identity} not found.")
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
