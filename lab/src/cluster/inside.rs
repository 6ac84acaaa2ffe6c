//! A control plane that is a group of its own master sub-cluster: where its group keeps what, and how it is begun before
//! anything runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_api::v1::{FailoverGroup, SuperCluster};
use serde_yaml::Value;

use crate::blueprint::{Blueprint, of_kind};
use crate::error::{LabError, Result};
use crate::host::Host;
use crate::spec::STATE_DIR;

/// The control plane as SuperCluster and group declare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Name of the super-cluster.
    pub super_cluster: String,
    /// The master sub-cluster.
    pub sub_cluster: String,
    /// The group that is the control plane.
    pub group: String,
    /// Where the API server is, whichever server runs it.
    pub listen: SocketAddr,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The file system that the directory is in: the device.
    pub device: PathBuf,
    /// The file system that the directory is in: where it is mounted.
    pub mount_point: PathBuf,
}

impl Inside {
    /// Looks at what `spec.master` of the super-cluster names.
    ///
    /// # Errors
    /// When it names nothing, or that group is no control plane whose data directory is in a file system of the group.
    pub fn read(source: &Path, documents: &[(PathBuf, Value)]) -> Result<Inside> {
        let refuse = |field: &str, problem: &str| LabError::Manifest {
            file: source.to_path_buf(),
            field: field.into(),
            problem: problem.into(),
        };
        let super_clusters: Vec<(PathBuf, SuperCluster)> = of_kind(documents, "SuperCluster")?;
        let found =
            super_clusters.iter().find_map(|(_, one)| Some((one.metadata.name.clone()?, one.spec.master.clone()?)));
        let (super_cluster, master) =
            found.ok_or_else(|| refuse("spec.master", "no super-cluster names a group that runs its control plane"))?;
        let groups: Vec<(PathBuf, FailoverGroup)> = of_kind(documents, "FailoverGroup")?;
        let group = groups.iter().map(|(_, group)| group).find(|group| {
            group.metadata.name.as_ref() == Some(&master.group) && group.spec.sub_cluster == master.sub_cluster
        });
        let group = group.ok_or_else(|| refuse("spec.master", "there is no such group in that sub-cluster"))?;
        let commands = group.spec.resources.iter().filter_map(|resource| resource.process.as_ref());
        let option = |name: &str| {
            let mut values = commands.clone().filter_map(|process| {
                let place = process.command.iter().position(|word| word == name)?;
                process.command.get(place + 1).cloned()
            });
            values.next().ok_or_else(|| refuse(name, "no process of the control plane's group has this option"))
        };
        let data_dir = PathBuf::from(option("--data-dir")?);
        let listen = option("--listen")?.parse().map_err(|_| refuse("--listen", "it is no address with a port"))?;
        let mut file_systems = group.spec.resources.iter().filter_map(|resource| resource.filesystem.as_ref());
        let file_system = file_systems.find(|one| data_dir.starts_with(&one.mount_point));
        let file_system = file_system.ok_or_else(|| refuse("--data-dir", "it is in no file system of the group"))?;
        Ok(Inside {
            super_cluster,
            sub_cluster: master.sub_cluster,
            group: master.group,
            listen,
            data_dir,
            device: (&file_system.device).into(),
            mount_point: (&file_system.mount_point).into(),
        })
    }

    /// Makes keys and an empty store on the group's disk, by hand on one server, and leaves in its state directory
    /// `admin.kubeconfig` and a `SERVER.kubeconfig` for every agent.
    pub(super) fn begin(&self, host: &Host, sub_clusters: &[Blueprint]) -> Result<()> {
        let (data, device, mount) = (self.data_dir.display(), self.device.display(), self.mount_point.display());
        let mut script = format!(
            "mkdir -p {mount}; mount {device} {mount}\n\
             holdfast init --data-dir {data} --listen {listen}\n\
             cp {data}/admin.kubeconfig {STATE_DIR}/admin.kubeconfig\n",
            listen = self.listen
        );
        for sub in sub_clusters {
            let (namespace, name) = (&sub.namespace, &sub.sub_cluster);
            script.extend(sub.servers.iter().map(|server| {
                format!(
                    "holdfast kubeconfig --data-dir {data} --server {namespace}/{name}/{server} --api https://{} \
                     --out {STATE_DIR}/{server}.kubeconfig\n",
                    self.listen
                )
            }));
        }
        script.push_str(&format!("umount {mount}\n"));
        host.exec(&["sh", "-ec", &script]).map(drop)
    }

    /// What the servers of the master have to know before there is an API: their sub-cluster, the group, and the Secret
    /// with the key of their heartbeats.
    pub(super) fn first_specification(&self, documents: &[(PathBuf, Value)], secret: &Value) -> Result<String> {
        let named = |value: &Value, kind: &str, name: &str| value["kind"] == kind && value["metadata"]["name"] == name;
        let own = documents.iter().map(|(_, value)| value).filter(|value| {
            named(value, "SubCluster", &self.sub_cluster) || named(value, "FailoverGroup", &self.group)
        });
        let texts = own.chain([secret]).map(serde_yaml::to_string);
        let texts: std::result::Result<Vec<String>, _> = texts.collect();
        texts.map(|texts| texts.join("---\n")).map_err(|error| LabError::Api(error.to_string()))
    }

    /// A Secret with a new key for the heartbeats of the master.
    pub(super) fn heartbeat_secret(&self, namespace: &str) -> Value {
        let key = [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat();
        let text = format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: {}-heartbeat, namespace: {namespace}}}, data: {{'1': {}}}}}",
            self.sub_cluster,
            STANDARD.encode(key)
        );
        serde_yaml::from_str(&text).expect("names and base64 need no quotes in YAML")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::documents;

    fn example(name: &str) -> Result<Inside> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        Inside::read(&path, &documents(&path).expect("the example is readable"))
    }

    #[test]
    fn the_control_plane_is_what_the_super_cluster_names() {
        let found = example("control-plane-inside").expect("it has one");
        assert_eq!((found.sub_cluster.as_str(), found.group.as_str()), ("master", "control-plane"));
        assert_eq!(found.listen.to_string(), "192.0.2.20:6443");
        assert_eq!((found.data_dir, found.mount_point), ("/srv/control/server".into(), "/srv/control".into()));
        let none = example("two-servers").expect_err("its control plane is elsewhere").to_string();
        assert!(none.contains("no super-cluster names a group"), "{none}");
    }
}
