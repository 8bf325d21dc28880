"""
### forget_customers: remove what is kept of customers who asked for it

**Does**, daily: takes the requests to forget that are open in the register (`recsys customer
forget`, the service's `DELETE /users/{id}`, the monitor), and removes everything that is kept of
these customers: rows of the shop's files and of the archive, histories in versions and models,
lists, requests, logs, reports. The published version is made anew, older ones that have somebody
go; models are written anew, and the service takes them over by itself. Then it looks whether
anything is left, and writes into the register what went. Whoever was forgotten before and stands
somewhere again goes again (`came_back`). Where nobody was ever forgotten it does nothing.

**Reads** `data/privacy`. **Changes** everything below the state root that has one of the customers;
files elsewhere are the shop's, and are named in the proof. It waits until `data_refresh`,
`model_training`, `outcomes` and `maintenance` do not run, and they wait for it.

**When it fails** or is killed, run it again: it goes on. A request that stays open says why in
`recsys customer requests --json`, and the alert `customers_not_forgotten` names the places: *cannot
be read*: look at the file, repair or remove it; *cannot be made anew*: `data_refresh` would fail as
well, see its runbook; *somebody reads it*: the next run removes it; *nobody knows the id any more*:
ask again. More: docs/privacy.md.
"""

from typing import Any

from airflow.sdk import task

from recsys.orchestration.jobs import Area, job_dag, no_retry_on_bad_input

with job_dag("forget_customers", __doc__, area=Area.UPKEEP):

    @task
    @no_retry_on_bad_input
    def forget() -> dict[str, Any]:
        from recsys.settings import load_settings
        from recsys.upkeep.forgetting import forget_customers

        return forget_customers(load_settings())

    forget()
