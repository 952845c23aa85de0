//! In which other versions the API server knows a resource. Asked when it does not know it in ours: a definition that is newer than
//! this agent is not one that is missing, and its objects are still there.

use std::time::Duration;

use kube::Client;
use tokio::time::timeout;

use crate::apiserver::failure::Resource;

const ANSWER: Duration = Duration::from_secs(10);

/// `v1, v1beta1`; `None`: in none. Every account may ask this (ClusterRole `system:discovery`).
pub(super) async fn served(client: &Client, resource: &Resource) -> Result<Option<String>, String> {
    let cannot = |why: String| format!("cannot ask in which versions {} are served: {why}", resource.plural);
    let asked = timeout(ANSWER, versions(client, resource)).await;
    match asked {
        Ok(Ok(found)) => Ok((!found.is_empty()).then(|| found.join(", "))),
        Ok(Err(e)) => Err(cannot(e.to_string())),
        Err(_) => Err(cannot(format!("no answer in {} s", ANSWER.as_secs()))),
    }
}

async fn versions(client: &Client, resource: &Resource) -> kube::Result<Vec<String>> {
    let groups = client.list_api_groups().await?.groups;
    let versions = groups.into_iter().filter(|g| g.name == resource.group).flat_map(|g| g.versions);
    let mut found = Vec::new();
    for version in versions {
        let known = match client.list_api_group_resources(&version.group_version).await {
            Ok(known) => known,
            // It went between the two questions.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(e) => return Err(e),
        };
        if known.resources.iter().any(|known| known.name == resource.plural) {
            found.push(version.version);
        }
    }
    Ok(found)
}
