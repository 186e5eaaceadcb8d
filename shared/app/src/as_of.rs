//! The stores as a caller saw them (`If-Match`): a change of anything that is not what it was is refused in
//! the commit itself, so nothing slips in between looking and changing.

use async_trait::async_trait;
use claviger_domain::decide::Decision;
use claviger_domain::ids::{InstanceId, PolicyId, TicketId};
use claviger_domain::instance::{AppInstance, InstanceDecision};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::ticket::Ticket;
use claviger_domain::values::{AccountId, App, OrganisationName, SiteName};
use uuid::Uuid;

use crate::ports::{Instances, Page, Policies, StoreError, Tickets};

/// A version of something, as it is shown: the next one differs, and another thing's too.
pub fn tag(id: Uuid, version: u64) -> String {
    format!("{version}-{}", id.simple())
}

/// What a caller has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It does not say.
    Anything,
    /// One of these versions.
    One(Vec<String>),
}

impl Seen {
    fn is(&self, id: Uuid, version: u64) -> Result<(), StoreError> {
        match self {
            Self::Anything => Ok(()),
            Self::One(tags) if tags.contains(&tag(id, version)) => Ok(()),
            Self::One(_) => Err(StoreError::Changed),
        }
    }
}

/// The stores for a caller that has seen something of them.
pub struct AsOf<'a, S: ?Sized> {
    /// The stores.
    pub stores: &'a S,
    /// What it has seen.
    pub seen: &'a Seen,
}

#[async_trait]
impl<S: Policies + ?Sized> Policies for AsOf<'_, S> {
    async fn policy(&self, organisation: &OrganisationName) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.stores.policy(organisation).await
    }

    async fn policy_by_id(&self, id: PolicyId) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.stores.policy_by_id(id).await
    }

    async fn commit_policy(
        &self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        if let Some(policy) = previous {
            self.seen.is(policy.id.as_uuid(), policy.version)?;
        }
        self.stores.commit_policy(previous, decision).await
    }

    async fn organisations_of_account(
        &self,
        account: &AccountId,
    ) -> Result<Vec<OrganisationName>, StoreError> {
        self.stores.organisations_of_account(account).await
    }
}

#[async_trait]
impl<S: Instances + ?Sized> Instances for AsOf<'_, S> {
    async fn instance(&self, id: InstanceId) -> Result<Option<AppInstance>, StoreError> {
        self.stores.instance(id).await
    }

    async fn instance_at(&self, site: &SiteName, app: &App) -> Result<Option<AppInstance>, StoreError> {
        self.stores.instance_at(site, app).await
    }

    async fn site_owner(&self, site: &SiteName) -> Result<Option<OrganisationName>, StoreError> {
        self.stores.site_owner(site).await
    }

    async fn instances_of_site(&self, site: &SiteName) -> Result<Vec<AppInstance>, StoreError> {
        self.stores.instances_of_site(site).await
    }

    async fn instances(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<AppInstance>, StoreError> {
        self.stores.instances(organisation, cursor, limit).await
    }

    async fn commit_instance(
        &self,
        previous: Option<&AppInstance>,
        decision: &InstanceDecision,
    ) -> Result<(), StoreError> {
        if let Some(instance) = previous {
            self.seen.is(instance.id.as_uuid(), instance.version)?;
        }
        self.stores.commit_instance(previous, decision).await
    }

    async fn commit_site(
        &self,
        from: &SiteName,
        to: &SiteName,
        renamed: &[(AppInstance, InstanceDecision)],
    ) -> Result<(), StoreError> {
        for (instance, _) in renamed {
            self.seen.is(instance.id.as_uuid(), instance.version)?;
        }
        self.stores.commit_site(from, to, renamed).await
    }
}

#[async_trait]
impl<S: Tickets + ?Sized> Tickets for AsOf<'_, S> {
    async fn ticket(
        &self,
        organisation: &OrganisationName,
        id: TicketId,
    ) -> Result<Option<Ticket>, StoreError> {
        self.stores.ticket(organisation, id).await
    }

    async fn tickets(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Ticket>, StoreError> {
        self.stores.tickets(organisation, cursor, limit).await
    }

    async fn save_ticket(&self, ticket: &Ticket) -> Result<(), StoreError> {
        self.seen.is(ticket.id.as_uuid(), ticket.version.saturating_sub(1))?;
        self.stores.save_ticket(ticket).await
    }
}
