//! The data services of the namespace: kept like groups, and for as long as a group that is kept names them.

use std::fs;

use holdfast_api::v1::{DataService, DataServiceStatus};

use super::*;

const DATA_SERVICES: &str = "data-services";

pub(super) fn open(directory: &Path) -> Result<BTreeMap<String, Arc<DataService>>, CacheError> {
    let directory = directory.join(DATA_SERVICES);
    fs::create_dir_all(&directory).map_err(fail(&directory, "made"))?;
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(&directory).map_err(fail(&directory, "read"))? {
        let path = entry.map_err(fail(&directory, "read"))?.path();
        if path.extension().is_some_and(|ending| ending == "json")
            && let Some(service) = read::<DataService>(&path)?
        {
            all.insert(service.metadata.name.clone().unwrap_or_default(), Arc::new(service));
        }
    }
    Ok(all)
}

impl SpecCache {
    fn data_service_file(&self, name: &str) -> PathBuf {
        self.directory.join(DATA_SERVICES).join(format!("{name}.json"))
    }

    /// Takes a data service as read from the API; returns whether something changed. Of a generation that isn't accepted only
    /// the hold is taken, beside the specification accepted before; of an object without a verdict, whose status may have been
    /// lost, nothing.
    pub fn take_data_service(&mut self, fresh: &DataService) -> Result<bool, CacheError> {
        let Some(name) = fresh.metadata.name.clone() else { return Ok(false) };
        let Some(status) = fresh.status.as_ref().filter(|status| !status.conditions.is_empty()) else {
            return Ok(false);
        };
        let held = self.specs.data_services.get(&name);
        let numbered = |service: &DataService| number::number(service.metadata.generation, None);
        if held.is_some_and(|held| {
            regressed((&held.metadata, numbered(held), &held.spec), (&fresh.metadata, numbered(fresh), &fresh.spec))
        }) {
            return Ok(false);
        }
        let mut taken = match held {
            _ if is_accepted(&status.conditions, &fresh.metadata) => {
                DataService { metadata: trimmed(&fresh.metadata), spec: fresh.spec.clone(), status: None }
            }
            Some(held) if held.metadata.uid == fresh.metadata.uid => DataService { status: None, ..(**held).clone() },
            _ => return Ok(false),
        };
        if !status.holds.is_empty() {
            taken.status = Some(DataServiceStatus { holds: status.holds.clone(), ..DataServiceStatus::default() });
        }
        if held.is_some_and(|held| **held == taken) {
            return Ok(false);
        }
        write(&self.data_service_file(&name), &taken)?;
        self.specs.data_services.insert(name, Arc::new(taken));
        Ok(true)
    }

    /// The API no longer has these data services: those that a group still names stay, for its stop and its next start.
    pub fn data_services_vanished(&mut self, present: impl Fn(&str) -> bool) -> Result<bool, CacheError> {
        let named = |name: &str| {
            let mut resources = self.specs.groups.values().flat_map(|group| &group.spec.resources);
            resources.any(|r| r.data_service.as_ref().is_some_and(|service| service.name == name))
        };
        let gone: Vec<String> =
            self.specs.data_services.keys().filter(|name| !present(name) && !named(name)).cloned().collect();
        for name in &gone {
            let path = self.data_service_file(name);
            fs::remove_file(&path).map_err(fail(&path, "removed"))?;
            self.specs.data_services.remove(name);
        }
        Ok(!gone.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_data_service_survives_a_restart_and_stays_while_a_group_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = SpecCache::open(dir.path()).unwrap();
        let service = |generation: i64, accepted: i64, path: &str| -> DataService {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "holdfast.dev/v1", "kind": "DataService",
                "metadata": {"name": "db2", "namespace": "ha", "uid": "u", "generation": generation},
                "spec": {"methods": [{"name": "start", "path": path}]},
                "status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                    "observedGeneration": accepted, "lastTransitionTime": "2026-03-02T01:00:00Z"}]}
            }))
            .unwrap()
        };
        assert!(!cache.take_data_service(&service(1, 0, "/a")).unwrap(), "not accepted yet");
        assert!(cache.take_data_service(&service(1, 1, "/a")).unwrap());
        assert!(!cache.take_data_service(&service(2, 1, "/b")).unwrap());
        let path = |cache: &SpecCache| cache.specs().data_services["db2"].spec.methods[0].path.clone().unwrap();
        assert_eq!(path(&SpecCache::open(dir.path()).unwrap()), "/a");
        assert!(cache.take_data_service(&service(2, 2, "/b")).unwrap());
        let is_held = |cache: &SpecCache| cache.specs().data_services["db2"].status.is_some();
        let mut held = service(2, 2, "/b");
        held.status.as_mut().unwrap().holds =
            vec![holdfast_api::v1::Hold { name: "op".into(), type_: "Stopped".into(), ..Default::default() }];
        assert!(cache.take_data_service(&held).unwrap() && is_held(&SpecCache::open(dir.path()).unwrap()));
        assert!(
            !cache.take_data_service(&DataService { status: None, ..held.clone() }).unwrap(),
            "its status was lost"
        );
        assert!(is_held(&cache));
        assert!(cache.take_data_service(&service(2, 2, "/b")).unwrap() && !is_held(&cache), "released");
        assert!(!cache.take_data_service(&service(1, 1, "/a")).unwrap(), "a restored backup");
        let user = serde_json::json!({"apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup",
            "metadata": {"name": "bank", "namespace": "ha", "uid": "g", "generation": 1},
            "spec": {"subCluster": "db", "resources": [{"name": "db", "dataService": {"name": "db2"}}]},
            "status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "observedGeneration": 1, "lastTransitionTime": "2026-03-02T01:00:00Z"}]}});
        cache.take_group(&serde_json::from_value(user).unwrap()).unwrap();
        assert!(!cache.data_services_vanished(|_| false).unwrap());
        assert_eq!(path(&SpecCache::open(dir.path()).unwrap()), "/b");
        cache.specs.groups.clear();
        assert!(cache.data_services_vanished(|_| false).unwrap());
        fs::remove_dir_all(dir.path().join(DIRECTORY).join("groups")).unwrap();
        assert!(SpecCache::open(dir.path()).unwrap().specs().data_services.is_empty());
    }
}
