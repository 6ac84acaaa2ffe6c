"""The Python client of Kubernetes, as its users write: typed, custom objects, dynamic, watches.

Runs against the API server of KUBECONFIG and raises at the first thing that is not as on any Kubernetes.
"""

import json
import sys

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError

GROUP = ("holdfast.dev", "v1")


def refused(status, call, *args, **kwargs):
    """The Status of a call that must fail."""
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == status, (error.status, error.body)
        return json.loads(error.body)
    raise AssertionError(f"{call} succeeded")


def group(name):
    return {
        "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": name, "labels": {"by": "python"}},
        "spec": {"subCluster": "db", "resources": [{"name": "app", "process": {"command": ["/usr/bin/app"]}}]},
    }


def typed():
    core = client.CoreV1Api()
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name="py")))
    assert core.read_namespace("py").status.phase == "Active"
    made = core.create_namespaced_config_map(
        "py", client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="m-"), data={"a": "1"}))
    name = made.metadata.name
    core.patch_namespaced_config_map(name, "py", {"data": {"b": "2"}})
    stale = refused(409, core.replace_namespaced_config_map, name, "py", made)
    assert stale["reason"] == "Conflict", stale
    assert core.read_namespaced_config_map(name, "py").data == {"a": "1", "b": "2"}
    rule = client.V1PolicyRule(verbs=["get"], api_groups=[""], resources=["configmaps"])
    role = client.V1Role(metadata=client.V1ObjectMeta(name="r"), rules=[rule])
    client.RbacAuthorizationV1Api().create_namespaced_role("py", role)
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(
        resource_attributes=client.V1ResourceAttributes(verb="delete", resource="configmaps", namespace="py")))
    assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed
    core.delete_collection_namespaced_config_map("py")
    assert core.list_namespaced_config_map("py").items == []


def custom():
    api = client.CustomObjectsApi()
    place = (*GROUP, "py", "failovergroups")
    for at in range(5):
        api.create_namespaced_custom_object(*place, group(f"g{at}"))
    names, token = [], None
    while True:
        page = api.list_namespaced_custom_object(*place, limit=2, _continue=token or "", label_selector="by=python")
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue")
        if not token:
            break
    assert names == ["g0", "g1", "g2", "g3", "g4"], names
    one = api.list_namespaced_custom_object(*place, field_selector="spec.subCluster=db,metadata.name=g3")
    assert [item["metadata"]["name"] for item in one["items"]] == ["g3"]
    bad = group("bad")
    del bad["spec"]["subCluster"]
    status = refused(422, api.create_namespaced_custom_object, *place, bad)
    assert any(cause["field"] == "spec.subCluster" for cause in status["details"]["causes"]), status
    api.patch_namespaced_custom_object_status(*place, "g0", {"status": {"phase": "Offline"}})
    assert api.get_namespaced_custom_object(*place, "g0")["status"]["phase"] == "Offline"

    seen = []
    version = one["metadata"]["resourceVersion"]
    for event in watch.Watch().stream(api.list_namespaced_custom_object, *place, resource_version=version, timeout_seconds=20):
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        if len(seen) == 1:
            api.delete_namespaced_custom_object(*place, "g1")
        if seen[-1][0] == "DELETED":
            break
    assert seen == [("MODIFIED", "g0"), ("DELETED", "g1")], seen


def dynamic_client():
    api = dynamic.DynamicClient(client.ApiClient())
    groups = api.resources.get(api_version="holdfast.dev/v1", kind="FailoverGroup")
    assert "fog" in groups.short_names
    applied = group("applied")
    apply = dict(content_type="application/apply-patch+yaml", namespace="py", name="applied")
    groups.patch(body=json.dumps(applied), field_manager="py", **apply)
    applied["spec"]["startup"] = "Manual"
    made = groups.patch(body=json.dumps(applied), field_manager="py", **apply)
    assert made.metadata.managedFields[0].manager == "py" and made.spec.startup == "Manual"
    applied["spec"]["startup"] = "Auto"
    try:
        groups.patch(body=json.dumps(applied), field_manager="other", **apply)
        raise AssertionError("a field of another manager was changed without force")
    except ConflictError as error:
        assert b".spec.startup" in error.body, error.body
    groups.patch(body={"metadata": {"labels": {"x": "y"}}}, name="applied", namespace="py",
                 content_type="application/merge-patch+json")
    found = groups.get(namespace="py", label_selector="x=y")
    assert [item.metadata.name for item in found.items] == ["applied"]
    for event in groups.watch(namespace="py", field_selector="metadata.name=applied", timeout=20):
        assert (event["type"], event["object"].metadata.name) == ("ADDED", "applied")
        break
    groups.delete(name="applied", namespace="py")
    try:
        groups.get(name="applied", namespace="py")
        raise AssertionError("it is still there")
    except NotFoundError:
        pass


config.load_kube_config()
for part in (typed, custom, dynamic_client):
    part()
    print("done:", part.__name__)
sys.stdout.flush()
