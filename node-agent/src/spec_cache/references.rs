//! Secrets and ConfigMaps for resources and monitors: for root only, and for as long as something that is kept names them.

use holdfast_api::references::{References, of_data_service, of_group, of_sub_cluster};

use super::*;

const RESOURCE_SECRETS: &str = "resource-secrets.json";
const CONFIG_MAPS: &str = "config-maps.json";

/// Texts of ConfigMaps by name and key.
pub type ConfigMaps = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn open(directory: &Path) -> Result<(Secrets, ConfigMaps), CacheError> {
    let secrets = read_secrets(&directory.join(RESOURCE_SECRETS))?;
    Ok((secrets, read(&directory.join(CONFIG_MAPS))?.unwrap_or_default()))
}

impl SpecCache {
    /// What sub-cluster, groups and data services that are kept name.
    pub fn references(&self) -> References {
        let mut all = self.specs.sub_cluster.as_ref().map(|object| of_sub_cluster(&object.spec)).unwrap_or_default();
        self.specs.groups.values().for_each(|group| all.extend(of_group(&group.spec)));
        self.specs.data_services.values().for_each(|service| all.extend(of_data_service(&service.spec)));
        all
    }

    /// Takes a Secret that a resource or monitor names; returns whether something changed. Those that none names any more are forgotten.
    pub fn take_resource_secret(&mut self, name: &str, data: &BTreeMap<String, Vec<u8>>) -> Result<bool, CacheError> {
        let secrets = with(&self.specs.resource_secrets, name, data, &self.references().secrets);
        if secrets == self.specs.resource_secrets {
            return Ok(false);
        }
        write_secrets(&self.directory.join(RESOURCE_SECRETS), &secrets)?;
        self.specs.resource_secrets = secrets;
        Ok(true)
    }

    /// Takes a ConfigMap in the same way.
    pub fn take_config_map(&mut self, name: &str, data: &BTreeMap<String, String>) -> Result<bool, CacheError> {
        let wanted = self.references().config_maps;
        let mut maps = self.specs.config_maps.clone();
        maps.insert(name.to_owned(), data.clone());
        maps.retain(|name, _| wanted.contains(name));
        if maps == self.specs.config_maps {
            return Ok(false);
        }
        write(&self.directory.join(CONFIG_MAPS), &maps)?;
        self.specs.config_maps = maps;
        Ok(true)
    }
}
