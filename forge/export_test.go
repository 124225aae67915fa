package forge

import "net/url"

// APIOf is where the API of GitHub is expected for an address.
func APIOf(page *url.URL) string { return apiOf(page).String() }
