package manifests

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/pager"

	"github.com/fairway-project/fairway/registry"
)

// answerWithin bounds a request that is no watch. It leaves time for webhooks, which may take ten
// seconds each.
const answerWithin = 30 * time.Second

// pageSize is how many objects a list has at a time.
const pageSize = 500

// server is an API server for the time of one activity, with the kinds that it knew at its beginning.
type server struct {
	cluster   registry.Cluster
	objects   rest.Interface // for server-side apply: it tells HTTP status codes
	dynamic   dynamic.Interface
	watching  dynamic.Interface // without a timeout
	metadata  metadata.Interface
	discovery *discovery.DiscoveryClient

	mu     sync.Mutex
	mapper meta.RESTMapper
	groups []*restmapper.APIGroupResources
	silent map[string]error // why groups have not told their kinds
}

func (a *Activities) connect(ctx context.Context, name string) (*server, error) {
	access, cluster, err := a.Clusters.REST(ctx, name)
	if err != nil {
		return nil, err
	}
	s := &server{cluster: cluster}
	patient := rest.CopyConfig(access)
	patient.Wrap(func(next http.RoundTripper) http.RoundTripper { return prompt{next} })
	config := rest.CopyConfig(patient)
	config.Timeout = answerWithin
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, invalid("cluster %s: %v", cluster.ID, err)
	}
	for _, make := range []func() error{
		func() (err error) { s.watching, err = dynamic.NewForConfig(patient); return },
		func() (err error) { s.dynamic, err = dynamic.NewForConfigAndClient(config, httpClient); return },
		func() (err error) { s.metadata, err = metadata.NewForConfigAndClient(config, httpClient); return },
		func() (err error) {
			s.discovery, err = discovery.NewDiscoveryClientForConfigAndClient(config, httpClient)
			return
		},
		func() (err error) {
			plain := dynamic.ConfigFor(config)
			plain.GroupVersion, plain.APIPath = &schema.GroupVersion{}, "/"
			s.objects, err = rest.UnversionedRESTClientForConfigAndClient(plain, httpClient)
			return
		},
	} {
		if err := make(); err != nil {
			return nil, invalid("cluster %s: building a client: %v", cluster.ID, err)
		}
	}
	return s, nil
}

// prompt hands on refusals that carry a Retry-After at once. Client-go would sleep that long, ten
// times, without a word to anybody; the activity's retries do it better.
type prompt struct{ next http.RoundTripper }

func (p prompt) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := p.next.RoundTrip(request)
	if response != nil {
		response.Header.Del("Retry-After")
	}
	return response, err
}

// ---- kinds

// discover asks which kinds there are: two requests. Groups that somebody else serves, who does not
// answer, are noted: nobody knows then which kinds they have.
func (s *server) discover(ctx context.Context) error {
	asked := &discoverer{DiscoveryInterface: s.discovery}
	groups, err := restmapper.GetAPIGroupResources(asked)
	if err != nil {
		return s.explain(ctx, "asking for its kinds", err)
	}
	silent := map[string]error{}
	if failed, partly := discovery.GroupDiscoveryFailedErrorGroups(asked.err); partly {
		for version, err := range failed {
			silent[version.Group] = err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups, s.mapper, s.silent = groups, restmapper.NewDiscoveryRESTMapper(groups), silent
	return nil
}

// discoverer keeps the error that restmapper drops where some groups have answered.
type discoverer struct {
	discovery.DiscoveryInterface
	err error
}

func (d *discoverer) ServerGroupsAndResources() (groups []*metav1.APIGroup, resources []*metav1.APIResourceList, err error) {
	groups, resources, d.err = d.DiscoveryInterface.ServerGroupsAndResources()
	return groups, resources, d.err
}

// silence says why the kinds of a group are unknown; nil if they are known.
func (s *server) silence(group string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silent[group]
}

func (s *server) kinds() meta.RESTMapper {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mapper
}

// kindNamed finds a kind as kubectl does: by kind, plural, singular or short name in any case, with
// or without its group.
func (s *server) kindNamed(name, apiVersion string) (*meta.RESTMapping, error) {
	version, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, err
	}
	resource := schema.ParseGroupResource(strings.ToLower(name))
	if apiVersion != "" {
		resource.Group = version.Group
	}
	mapper := s.kinds()
	wanted := resource.WithVersion(version.Version)
	kind, err := mapper.KindFor(wanted)
	if meta.IsNoMatchError(err) {
		if long, found := s.shortNamed(resource); found {
			kind, err = mapper.KindFor(long.WithVersion(version.Version))
		}
	}
	if err != nil {
		return nil, err
	}
	return mapper.RESTMapping(kind.GroupKind(), kind.Version)
}

func (s *server) shortNamed(wanted schema.GroupResource) (schema.GroupResource, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, group := range s.groups {
		if wanted.Group != "" && wanted.Group != group.Group.Name {
			continue
		}
		for _, resources := range group.VersionedResources {
			for _, resource := range resources {
				if slices.Contains(resource.ShortNames, wanted.Resource) {
					return schema.GroupResource{Group: group.Group.Name, Resource: resource.Name}, true
				}
			}
		}
	}
	return schema.GroupResource{}, false
}

// ---- objects

// identity is what tells one object of a cluster from all others.
type identity struct {
	schema.GroupKind
	types.NamespacedName
}

func (i identity) String() string { return i.Kind + " " + i.title() }

// title is namespace/name, or only the name.
func (i identity) title() string {
	if i.Namespace == "" {
		return i.Name
	}
	return i.NamespacedName.String()
}

func (s *server) of(mapping *meta.RESTMapping, namespace string) dynamic.ResourceInterface {
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return s.dynamic.Resource(mapping.Resource)
	}
	return s.dynamic.Resource(mapping.Resource).Namespace(namespace)
}

func (s *server) metadataOf(mapping *meta.RESTMapping, namespace string) metadata.ResourceInterface {
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return s.metadata.Resource(mapping.Resource)
	}
	return s.metadata.Resource(mapping.Resource).Namespace(namespace)
}

// eachMetadata lists the metadata of objects of a kind, page by page.
func (s *server) eachMetadata(ctx context.Context, mapping *meta.RESTMapping, namespace string, options metav1.ListOptions, do func(*metav1.PartialObjectMetadata)) error {
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return s.metadataOf(mapping, namespace).List(ctx, options)
	})
	pages.PageSize = pageSize
	err := pages.EachListItem(ctx, options, func(object runtime.Object) error {
		item, ok := object.(*metav1.PartialObjectMetadata)
		if !ok {
			return fmt.Errorf("a list of %s has a %T in it", mapping.Resource.Resource, object)
		}
		do(item)
		return nil
	})
	return s.explain(ctx, "listing "+mapping.Resource.GroupResource().String(), err)
}
