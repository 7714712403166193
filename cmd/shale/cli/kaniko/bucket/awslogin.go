package bucket

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// instanceTimeout is the time in which the metadata service of an instance must answer.
// Most machines have no such service.
const instanceTimeout = 2 * time.Second

// awsLogin returns the credentials for AWS. It looks for them in the order of AWS's own
// programs: the environment, the role of a pod (web identity), the file of shared
// credentials, the task or pod, the instance. If there are none, it returns empty
// credentials, and requests are anonymous.
func (s Stores) awsLogin(ctx context.Context) (aws.Credentials, error) {
	if id, secret := s.get("AWS_ACCESS_KEY_ID"), s.get("AWS_SECRET_ACCESS_KEY"); id != "" && secret != "" {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: s.get("AWS_SESSION_TOKEN")}, nil
	}
	if file, role := s.get("AWS_WEB_IDENTITY_TOKEN_FILE"), s.get("AWS_ROLE_ARN"); file != "" && role != "" {
		return s.webIdentity(ctx, file, role)
	}
	if login, err := s.sharedLogin(); err != nil || login.AccessKeyID != "" {
		return login, err
	}
	if endpoint := s.containerEndpoint(); endpoint != "" {
		provider := endpointcreds.New(endpoint, func(o *endpointcreds.Options) {
			o.HTTPClient = s.Client
			o.AuthorizationToken = s.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
			if file := s.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
				o.AuthorizationTokenProvider = endpointcreds.TokenProviderFunc(func() (string, error) {
					token, err := os.ReadFile(file)
					return strings.TrimSpace(string(token)), err
				})
			}
		})
		return provider.Retrieve(ctx)
	}
	return s.instanceLogin(ctx), nil
}

// containerEndpoint returns the address from which a task of ECS or a pod of EKS gets
// credentials, or "" if there is none.
func (s Stores) containerEndpoint() string {
	if path := s.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); path != "" {
		return "http://169.254.170.2" + path
	}
	return s.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
}

// instanceLogin returns the credentials of the instance. They are empty if this machine
// is not an instance.
func (s Stores) instanceLogin(ctx context.Context) aws.Credentials {
	if strings.EqualFold(s.get("AWS_EC2_METADATA_DISABLED"), "true") {
		return aws.Credentials{}
	}
	ctx, cancel := context.WithTimeout(ctx, instanceTimeout)
	defer cancel()
	provider := ec2rolecreds.New(func(o *ec2rolecreds.Options) {
		o.Client = imds.New(imds.Options{HTTPClient: s.Client, Endpoint: s.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"), Retryer: aws.NopRetryer{}})
	})
	login, err := provider.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}
	}
	return login
}

// sharedLogin returns the credentials of the chosen profile in the file that "aws
// configure" writes. They are empty if the file does not exist.
func (s Stores) sharedLogin() (aws.Credentials, error) {
	file := s.get("AWS_SHARED_CREDENTIALS_FILE")
	if file == "" {
		file = filepath.Join(s.get("HOME"), ".aws", "credentials")
	}
	profile := s.get("AWS_PROFILE")
	if profile == "" {
		profile = "default"
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return aws.Credentials{}, nil
	}
	if err != nil {
		return aws.Credentials{}, err
	}
	defer f.Close()
	values, err := section(f, profile)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("read %s: %w", file, err)
	}
	return aws.Credentials{
		AccessKeyID: values["aws_access_key_id"], SecretAccessKey: values["aws_secret_access_key"], SessionToken: values["aws_session_token"],
	}, nil
}

// section returns the settings in one section of an ini file.
func section(r io.Reader, name string) (map[string]string, error) {
	values, inside := map[string]string{}, false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			inside = strings.TrimSpace(strings.Trim(line, "[]")) == name
			continue
		}
		if key, value, found := strings.Cut(line, "="); found && inside && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
			values[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
	return values, lines.Err()
}

// webIdentity exchanges the token of a pod for credentials of its role
// (AssumeRoleWithWebIdentity, which requires no signature).
func (s Stores) webIdentity(ctx context.Context, file, role string) (aws.Credentials, error) {
	token, err := os.ReadFile(file)
	if err != nil {
		return aws.Credentials{}, err
	}
	session := s.get("AWS_ROLE_SESSION_NAME")
	if session == "" {
		session = "shale"
	}
	address := "https://sts." + s.region() + ".amazonaws.com/"
	if endpoint := s.get("AWS_ENDPOINT_URL_STS"); endpoint != "" {
		address = endpoint
	}
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {role},
		"RoleSessionName": {session}, "WebIdentityToken": {strings.TrimSpace(string(token))},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return aws.Credentials{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, err := stream(s.Client, req)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("assume role %s: %w", role, err)
	}
	defer body.Close()
	var answer struct {
		Credentials struct {
			AccessKeyID     string `xml:"AccessKeyId"`
			SecretAccessKey string
			SessionToken    string
		} `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
	}
	if err := xml.NewDecoder(io.LimitReader(body, 1<<20)).Decode(&answer); err != nil {
		return aws.Credentials{}, fmt.Errorf("assume role %s: %w", role, err)
	}
	c := answer.Credentials
	return aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}, nil
}

// region returns the assumed region of a bucket. If the assumption is wrong, the server
// names the right one.
func (s Stores) region() string {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if v := s.get(name); v != "" {
			return v
		}
	}
	return "us-east-1"
}
