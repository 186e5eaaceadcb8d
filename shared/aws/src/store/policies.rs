//! Encryption policies: the one conditional transaction of a decision.

use std::collections::BTreeSet;

use async_trait::async_trait;
use claviger_app::ports::{Policies, StoreError, SupportRequest};
use claviger_domain::catalogue::Mode;
use claviger_domain::decide::Decision;
use claviger_domain::ids::PolicyId;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::values::{AccountId, KeyArn, OrganisationName};

use super::items::{Item, document, item, number, parsed_of, text};
use super::names::VERSION;
use super::pages::{Direction, Range};
use super::transaction::{Condition, Otherwise, Transaction};
use super::{DynamoStore, fence, names};

#[async_trait]
impl Policies for DynamoStore {
    async fn policy(&self, organisation: &OrganisationName) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.load(&names::policy(organisation)).await
    }

    async fn policy_by_id(&self, id: PolicyId) -> Result<Option<EncryptionPolicy>, StoreError> {
        let Some(pointer) = self.get(&self.tables.control, &names::policy_pointer(id)).await? else {
            return Ok(None);
        };
        let organisation: OrganisationName = parsed_of(&pointer, "organisation")?;
        // A rejected policy may have been followed by another one of the same organisation.
        Ok(self.policy(&organisation).await?.filter(|policy| policy.id == id))
    }

    async fn commit_policy(
        &self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        let transaction = self.of_decision(previous, decision)?;
        self.commit(transaction).await
    }

    async fn organisations_of_account(
        &self,
        account: &AccountId,
    ) -> Result<Vec<OrganisationName>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::account_partition(account),
            prefix: names::ORGANISATION_PREFIX,
            direction: Direction::Forward,
        };
        let found = self.items(&range, None, None).await?;
        found.iter().map(|item| parsed_of(item, "organisation")).collect()
    }
}

fn policy_item(policy: &EncryptionPolicy) -> Result<Item, StoreError> {
    document(
        &names::policy(&policy.organisation_name),
        policy,
        [
            (VERSION, number(policy.version)),
            ("policyId", text(policy.id)),
            ("state", text(policy.lifecycle.slug())),
            ("epoch", number(policy.fence.epoch.0)),
        ],
    )
}

/// What must be stored for a decision on `previous` to count (spec E4: one policy an organisation).
pub(super) fn condition_on(previous: Option<&EncryptionPolicy>) -> (Condition, Otherwise) {
    match previous {
        None => (
            Condition::that("attribute_not_exists(pk) OR #state = :rejected")
                .naming("#state", "state")
                .with(":rejected", text("rejected")),
            Otherwise::Taken("encryption-policy"),
        ),
        Some(known) => (
            Condition::that("#version = :version AND policyId = :id")
                .naming("#version", VERSION)
                .with(":version", number(known.version))
                .with(":id", text(known.id)),
            Otherwise::Conflict,
        ),
    }
}

/// Whether a policy holds its keys and its account.
const fn holds_claims(lifecycle: &Lifecycle) -> bool {
    match lifecycle {
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Active { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. } => true,
        Lifecycle::Closed { .. } | Lifecycle::Rejected { .. } => false,
    }
}

impl DynamoStore {
    /// Everything that a decision writes.
    pub(super) fn of_decision(
        &self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<Transaction, StoreError> {
        let control = &self.tables.control;
        let next = &decision.next;
        let mut transaction = Transaction::default();
        let (condition, otherwise) = condition_on(previous);
        transaction.put(control, policy_item(next)?, condition, otherwise)?;
        if previous.is_none() {
            let pointer =
                item(&names::policy_pointer(next.id), [("organisation", text(&next.organisation_name))]);
            transaction.put(control, pointer, Condition::absent(), Otherwise::Conflict)?;
        }
        self.claims(&mut transaction, previous, next)?;
        self.record(&mut transaction, &decision.fact, &decision.outbox)?;
        self.fence_of(&mut transaction, previous, next)?;
        self.watch_row(&mut transaction, previous, next)?;
        let waiting = (previous.and_then(SupportRequest::of_policy), SupportRequest::of_policy(next));
        self.request_of(&mut transaction, waiting.0, waiting.1)?;
        Ok(transaction)
    }

    /// Claims what the policy holds from now on and gives back what it holds no more (spec E5, E12).
    fn claims(
        &self,
        transaction: &mut Transaction,
        previous: Option<&EncryptionPolicy>,
        next: &EncryptionPolicy,
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let before = previous.filter(|policy| holds_claims(&policy.lifecycle));
        let after = Some(next).filter(|policy| holds_claims(&policy.lifecycle));
        let keys = |policy: Option<&EncryptionPolicy>| -> BTreeSet<KeyArn> {
            policy.map(EncryptionPolicy::claimed_keys).unwrap_or_default()
        };
        let (had, has) = (keys(before), keys(after));
        let organisation = text(&next.organisation_name);
        for arn in has.difference(&had) {
            let claim = item(&names::key_arn(arn), [("organisation", organisation.clone())]);
            transaction.put(control, claim, Condition::absent(), Otherwise::Taken("keys"))?;
        }
        for arn in had.difference(&has) {
            let ours = Condition::that("attribute_not_exists(pk) OR organisation = :organisation")
                .with(":organisation", organisation.clone());
            transaction.delete(control, &names::key_arn(arn), ours, Otherwise::Conflict)?;
        }
        let account = |policy: &EncryptionPolicy| (policy.account.clone(), policy.mode());
        let (had, has) = (before.map(account), after.map(account));
        if had != has {
            self.account_claim(transaction, &next.organisation_name, had.as_ref(), has.as_ref())?;
        }
        Ok(())
    }

    /// INVARIANT (E5): an account with a BYOK organisation has no other. `exclusive` names that organisation; `users`
    /// counts the CMK organisations, which may share an account.
    fn account_claim(
        &self,
        transaction: &mut Transaction,
        name: &OrganisationName,
        had: Option<&(AccountId, Mode)>,
        has: Option<&(AccountId, Mode)>,
    ) -> Result<(), StoreError> {
        const TAKEN: Otherwise = Otherwise::Taken("awsAccountId");
        let control = &self.tables.control;
        let owned = |account| item(&names::account_owner(account), [("exclusive", text(name))]);
        let shared = |account| item(&names::account_owner(account), [("users", number(1))]);
        let ours = || {
            Condition::that("#exclusive = :name").naming("#exclusive", "exclusive").with(":name", text(name))
        };
        let used_by = |count| Condition::that("#users = :count").with(":count", number(count));
        // An update that changes the mode on one account touches the owner's item once.
        if let (Some((account, Mode::Byok)), Some((same, Mode::Cmk))) = (had, has)
            && account == same
        {
            return transaction.put(control, shared(account), ours(), Otherwise::Conflict);
        }
        if let (Some((account, Mode::Cmk)), Some((same, Mode::Byok))) = (had, has)
            && account == same
        {
            let alone = used_by(1).naming("#users", "users");
            return transaction.put(control, owned(account), alone, TAKEN);
        }
        if let Some((account, mode)) = has {
            let free = match mode {
                Mode::Byok => Condition::that("attribute_not_exists(pk) OR #users = :zero")
                    .naming("#users", "users")
                    .with(":zero", number(0)),
                Mode::Cmk => Condition::that("attribute_not_exists(#exclusive)")
                    .naming("#exclusive", "exclusive")
                    .naming("#users", "users")
                    .with(":one", number(1)),
            };
            match mode {
                Mode::Byok => transaction.put(control, owned(account), free, TAKEN)?,
                Mode::Cmk => transaction.update(
                    control,
                    &names::account_owner(account),
                    "ADD #users :one",
                    free,
                    TAKEN,
                )?,
            }
            let member = item(&names::account_organisation(account, name), [("organisation", text(name))]);
            transaction.put(control, member, Condition::none(), Otherwise::Conflict)?;
        }
        if let Some((account, mode)) = had {
            let owner = names::account_owner(account);
            match mode {
                Mode::Byok => transaction.delete(control, &owner, ours(), Otherwise::Conflict)?,
                Mode::Cmk => transaction.update(
                    control,
                    &owner,
                    "ADD #users :less",
                    Condition::that("attribute_exists(pk)")
                        .naming("#users", "users")
                        .with(":less", number(-1)),
                    Otherwise::Conflict,
                )?,
            }
            let member = names::account_organisation(account, name);
            transaction.delete(control, &member, Condition::none(), Otherwise::Conflict)?;
        }
        Ok(())
    }

    /// INVARIANT (I1): the cut-off is this transaction, so every copy of the fence is in it.
    fn fence_of(
        &self,
        transaction: &mut Transaction,
        previous: Option<&EncryptionPolicy>,
        next: &EncryptionPolicy,
    ) -> Result<(), StoreError> {
        let before = previous.map(|policy| policy.fence.clone()).unwrap_or_default();
        if before == next.fence {
            return Ok(());
        }
        for copy in 0..self.fence_copies {
            let item = fence::policy_item(copy, next);
            transaction.put(&self.tables.fence, item, Condition::none(), Otherwise::Conflict)?;
        }
        Ok(())
    }

    /// The row from which the policy's shard is swept, as long as it is.
    fn watch_row(
        &self,
        transaction: &mut Transaction,
        previous: Option<&EncryptionPolicy>,
        next: &EncryptionPolicy,
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let place = |policy: &EncryptionPolicy| {
            policy.lifecycle.is_watched().then(|| names::watch(policy.shard, policy.id))
        };
        let (before, after) = (previous.and_then(place), place(next));
        if let Some(key) = before.filter(|before| Some(before) != after.as_ref()) {
            transaction.delete(control, &key, Condition::none(), Otherwise::Conflict)?;
        }
        if let Some(key) = after {
            let row = document(&key, next, [])?;
            transaction.put(control, row, Condition::none(), Otherwise::Conflict)?;
        }
        Ok(())
    }
}
