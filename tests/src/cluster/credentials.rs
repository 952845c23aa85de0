//! What the programs of a control plane know each other by: an authority, serving certificates, the key that signs the tokens of
//! service accounts, the admin's token. Made for one control plane, in its directory.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// The files of one control plane, and the authority behind its certificates.
pub struct Credentials {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    authority: String,
    token: String,
}

impl Credentials {
    /// Makes all but the serving certificate.
    pub fn new(directory: &Path) -> Result<Self> {
        let (issuer, authority) = authority()?;
        let mut random = [0; 24];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("no random numbers"))?;
        let token = URL_SAFE_NO_PAD.encode(random);
        let made = Self { directory: directory.to_owned(), issuer, authority, token };
        let accounts = KeyPair::generate().context("make the key of service accounts")?;
        made.write("ca.crt", &made.authority)?;
        made.write("accounts.key", &accounts.serialize_pem())?;
        made.write("accounts.pub", &accounts.public_key_pem())?;
        made.write("tokens.csv", &format!("{},admin,admin,\"system:masters\"\n", made.token))?;
        Ok(made)
    }

    /// Another authority, in `ca.crt` and in each kubeconfig that was written. What is served is of the one before, until
    /// [`Credentials::renew_serving`].
    pub fn rotate_authority(&mut self) -> Result<()> {
        let (issuer, new) = authority()?;
        let (old, shown) = (STANDARD.encode(&self.authority), STANDARD.encode(&new));
        self.write("ca.crt", &new)?;
        for entry in fs::read_dir(&self.directory).context("look for kubeconfigs")? {
            let path = entry.context("look for kubeconfigs")?.path();
            if path.extension().is_some_and(|extension| extension == "kubeconfig") {
                let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                fs::write(&path, text.replace(&old, &shown)).with_context(|| format!("write {}", path.display()))?;
            }
        }
        (self.issuer, self.authority) = (issuer, new);
        Ok(())
    }

    /// A new key and certificate for the API server, in place of those before.
    pub fn renew_serving(&self, address: IpAddr) -> Result<()> {
        let names: Vec<String> =
            [address.to_string(), Ipv4Addr::LOCALHOST.to_string(), "kubernetes.default.svc".into()].into();
        let key = KeyPair::generate().context("make the API server's key")?;
        let mut params = CertificateParams::new(names).context("name the API server")?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let certificate = params.signed_by(&key, &self.issuer).context("sign the API server's certificate")?;
        self.write("serving.crt", &certificate.pem())?;
        self.write("serving.key", &key.serialize_pem()).map(drop)
    }

    /// Writes the admin's kubeconfig.
    pub fn admin(&self, server: SocketAddr) -> Result<PathBuf> {
        self.kubeconfig("admin", server, "default", &self.token)
    }

    /// Writes `USER.kubeconfig`, which logs in with a token.
    pub fn kubeconfig(&self, user: &str, server: SocketAddr, namespace: &str, token: &str) -> Result<PathBuf> {
        let authority = STANDARD.encode(&self.authority);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"https://{server}\", certificate-authority-data: {authority}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, namespace: {namespace}, user: {user}}}}}]\n\
             users: [{{name: {user}, user: {{token: {token}}}}}]\n"
        );
        self.write(&format!("{user}.kubeconfig"), &text)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// A new authority, and its certificate.
fn authority() -> Result<(Issuer<'static, KeyPair>, String)> {
    let key = KeyPair::generate().context("make the authority's key")?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "test cluster authority");
    let certificate = params.self_signed(&key).context("make the authority")?.pem();
    Ok((Issuer::new(params, key), certificate))
}
