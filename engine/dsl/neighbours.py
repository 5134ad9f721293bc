"""Words of other systems, for hints: needed only where something is wrong."""

from __future__ import annotations

_MAP = "`type: map` with `items`"
_WHEN = "`when` on each task, or `type: group` for a whole branch"
_CHILD = "`type: workflow` with `workflow`"
_WAIT = "`type: wait` with `duration`"
_LOOP = "`type: loop` with `until`"
_END = "`type: end`"
_SIGNAL = "`type: signal`"
_FIRST_COME = "`concurrency: {group: …, limit: …}`"

WORDS: dict[str, str] = {
    # order and conditions
    **dict.fromkeys(("needs", "need", "depends", "dependencies", "dependsOn", "after", "upstream", "requires"), "depends_on"),
    **dict.fromkeys(("if", "run_if", "condition", "only_if", "runIf", "unless"), "when"),
    **dict.fromkeys(("steps", "jobs", "nodes", "do", "dag", "states", "activities", "operations"), "tasks"),
    **dict.fromkeys(("switch", "case", "cases", "choice", "choices", "branches", "branch", "else", "otherwise"), _WHEN),
    "parallel": "`type: group`; tasks that do not wait for each other run at once",
    "sequence": "`depends_on` on each task",
    "next_task": "`depends_on` on the task that comes after",
    "trigger_rule": "run_on",
    # what a task does
    **dict.fromkeys(("uses", "action", "operator", "call", "executor"), "activity_type"),
    **dict.fromkeys(("with", "params", "args", "arguments"), "config"),
    **dict.fromkeys(("parameters", "input"), "inputs"),
    **dict.fromkeys(("output", "result", "register", "output_path", "outputParameters"), "outputs"),
    **dict.fromkeys(("assign", "set"), "`type: set` with `values`"),
    "assert": "success_when",
    # many, and again
    **dict.fromkeys(
        ("foreach", "for_each", "forEach", "with_items", "withItems", "with_param", "withParam", "withSequence",
         "iterator", "itemsPath", "expand", "partial", "map", "each"), _MAP),
    **dict.fromkeys(("matrix", "strategy"), _MAP + "; `product(…)` makes all combinations"),
    **dict.fromkeys(("loop", "while", "do_while", "repeat", "repeat_until", "poll", "polling", "wait_for"), _LOOP),
    **dict.fromkeys(("loop_var", "item_name", "var", "itemVariable"), "as"),
    **dict.fromkeys(("iterations", "maxIterations", "max_loops", "limit_iterations"), "max_iterations"),
    **dict.fromkeys(
        ("parallelism", "concurrency_limit", "max-parallel", "max_parallel", "maxConcurrency", "max_active_tasks",
         "concurrencyLimit"), "max_concurrency"),
    **dict.fromkeys(
        ("tolerated_failure_percentage", "ToleratedFailurePercentage", "tolerated_failure_count", "max_failures"),
        "tolerated_failures"),
    # other workflows
    **dict.fromkeys(
        ("sub_workflow", "subworkflow", "subWorkflow", "subflow", "child_workflow", "workflow_call", "call_workflow",
         "trigger_dag_id", "workflowTemplateRef", "templateRef"), _CHILD),
    # failure
    **dict.fromkeys(("on_error", "onFailure", "catch", "rescue", "on_exit_failure"), "on_failure"),
    **dict.fromkeys(("always", "on_exit", "onExit", "ensure", "cleanup", "teardown"), "finally"),
    **dict.fromkeys(("saga", "rollback", "undo", "compensation", "on_rollback", "compensate_with"), "compensate"),
    **dict.fromkeys(("retries", "retry_policy", "retryStrategy", "retryPolicy"), "retry"),
    "max_retries": "retry: {max_attempts: …}",
    **dict.fromkeys(("attempts", "maxAttempts", "max_tries", "limit"), "max_attempts"),
    **dict.fromkeys(("backoff", "multiplier", "factor"), "backoff_coefficient"),
    **dict.fromkeys(
        ("continue_on_error", "continue-on-error", "continueOn", "ignore_errors", "allow_failure", "allowFailure"),
        "continue_on_failure"),
    **dict.fromkeys(("fail-fast", "fail_fast", "failFast"), "`on_task_failure: cancel`"),
    # time
    **dict.fromkeys(
        ("timeout-minutes", "timeout_minutes", "timeout_seconds", "timeoutSeconds", "deadline",
         "activeDeadlineSeconds", "execution_timeout"), "timeout"),
    **dict.fromkeys(("sleep", "delay", "pause", "suspend"), _WAIT),
    "interval": "initial_interval",
    # what starts it
    **dict.fromkeys(
        ("on", "schedule", "cron", "schedules", "schedule_interval", "crontab", "timetable", "webhook", "webhooks", "events"),
        "triggers"),
    **dict.fromkeys(("time_zone", "tz", "timeZone"), "timezone"),
    **dict.fromkeys(("catchup", "startingDeadlineSeconds", "misfire"), "catchup_window"),
    **dict.fromkeys(("overlap_policy", "concurrencyPolicy"), "overlap"),
    # how many at once
    **dict.fromkeys(("mutex", "semaphore", "synchronization", "pool", "lock", "max_active_runs"), _FIRST_COME),
    **dict.fromkeys(("cancel-in-progress", "cancel_in_progress"), "`on_conflict: cancel_running`"),
    **dict.fromkeys(("memoize", "caching", "cache_key"), "cache"),
    "ttl": "max_age",
    # waiting for others, and the end
    **dict.fromkeys(("event", "receive", "wait_for_signal", "wait_for_event", "await"), _SIGNAL),
    **dict.fromkeys(("return", "exit", "stop", "succeed", "terminate"), _END),
    "fail": "`type: end` with `status: FAILED`",
    # names
    **dict.fromkeys(("queue", "runs-on", "runs_on", "agent", "pool_name"), "task_queue"),
    **dict.fromkeys(("variables", "vars", "environment", "constants"), "env"),
    "secret": "secrets",
    **dict.fromkeys(("key", "task_id", "step"), "id"),
    "label": "name",
    "summary": "description",
    **dict.fromkeys(("apiVersion", "kind", "schema_version"), "dsl"),
}  # fmt: skip
"""Words of other systems, and ours."""

_APPROVAL = "`activity_type: human_approval`"
_CODE = "`activity_type: python_function`, with the code in `functions/`"
TYPES: dict[str, str] = {
    **dict.fromkeys(("foreach", "for_each", "each", "matrix", "fanout", "fan_out", "iterate"), "`type: map`"),
    **dict.fromkeys(("while", "until", "repeat", "do_while", "poll", "polling"), "`type: loop`"),
    **dict.fromkeys(("parallel", "sequence", "sequential", "dag", "block", "branch", "scope"), "`type: group`"),
    **dict.fromkeys(("switch", "choice", "if", "condition", "decision"), _WHEN),
    **dict.fromkeys(("subflow", "sub_workflow", "subworkflow", "child", "child_workflow", "flow", "call"), "`type: workflow`"),
    **dict.fromkeys(("sleep", "delay", "timer", "pause"), "`type: wait`"),
    **dict.fromkeys(("event", "webhook", "receive", "callback"), "`type: signal`"),
    **dict.fromkeys(("fail", "succeed", "success", "exit", "stop", "return", "terminate"), "`type: end`"),
    **dict.fromkeys(("assign", "variables", "pass", "value"), "`type: set`"),
    **dict.fromkeys(("approval", "manual", "human", "gate", "input", "suspend"), _APPROVAL),
    **dict.fromkeys(("http", "request", "rest", "api"), "`activity_type: http_request`"),
    **dict.fromkeys(("python", "script", "function", "run", "code", "shell", "bash", "container", "docker"), _CODE),
}  # fmt: skip
"""Types of tasks in other systems, and ours."""

_SEE = "; see “what is left out” in the docs"
LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(("script", "run", "shell", "code", "inline", "source", "command", "container", "image"),
        "no code stands in a definition: " + _CODE + _SEE),
    **dict.fromkeys(("template", "templates", "include", "extends", "import", "imports", "anchors"),
        "there are no templates: call a workflow with `type: workflow`" + _SEE),
    **dict.fromkeys(("artifacts", "artifact", "volumes", "workspace"),
        "there are no artifacts: store the file, and give its address in `outputs`" + _SEE),
    **dict.fromkeys(("metrics", "prometheus"), "metrics are the server's: `/metrics`" + _SEE),
    **dict.fromkeys(("rate_limit", "rateLimit", "throttle", "ratelimit"),
        "there is no rate limit: " + _FIRST_COME + " limits how many run at once" + _SEE),
}  # fmt: skip
"""What other systems have in their definitions and this one does not, and what to do instead."""
