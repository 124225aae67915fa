package forge

import (
	"crypto/rsa"
	"net/http"
	"net/url"

	"github.com/bradleyfalzon/ghinstallation/v2"
	"github.com/golang-jwt/jwt/v4"
)

// appTransports return what an installation of an app, and the app itself, send their requests with.
func appTransports(api *url.URL, app *App) (installation, itself http.RoundTripper) {
	base := newTransport(api, nil)
	signer := appKey{app}
	transport := func() *ghinstallation.AppsTransport {
		apps, err := ghinstallation.NewAppsTransportWithOptions(base, app.ID, ghinstallation.WithSigner(signer))
		if err != nil {
			panic(err) // only without a signer
		}
		apps.BaseURL = api.String()
		return apps
	}
	// The installation changes its own one while it works.
	return withKey{ghinstallation.NewFromAppsTransport(transport(), app.Installation), signer}, withKey{transport(), signer}
}

// appKey signs with the key of an app, read whenever that is needed.
type appKey struct{ app *App }

func (k appKey) Sign(claims jwt.Claims) (string, error) {
	key, err := k.read()
	if err != nil {
		return "", err
	}
	return jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
}

func (k appKey) read() (*rsa.PrivateKey, error) {
	data, err := k.app.Key()
	if err != nil {
		return nil, &refusal{kind: ErrRefused, text: "reading the app's key: " + clean(err.Error())}
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM(data)
	if err != nil {
		return nil, &refusal{kind: ErrRefused, text: "the app's key is no private RSA key as PEM"}
	}
	return key, nil
}

// withKey tells that a key cannot be used, which the library would make a mere text of.
type withKey struct {
	http.RoundTripper
	key appKey
}

func (w withKey) RoundTrip(request *http.Request) (*http.Response, error) {
	if _, err := w.key.read(); err != nil {
		if request.Body != nil {
			request.Body.Close()
		}
		return nil, err
	}
	return w.RoundTripper.RoundTrip(request)
}
