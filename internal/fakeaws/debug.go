package fakeaws

import (
	"net/http"
	"time"
)

// handleDebug serves what only Go could ask for otherwise, to tests of another process.
//
//	POST /_fake/root-key              a key of the account's root user
//	POST /_fake/cluster               makes the EKS cluster of a name
//	POST /_fake/pod-session           a session as EKS Pod Identity gives it: cluster, namespace, serviceAccount, name, uid
//	POST /_fake/web-identity-token    a service account token for an hour: issuer, subject, audience
//	POST /_fake/clock                 SetClockOffset: offset, as in 2h or -360h
//	POST /_fake/rotate-key            another key for whom key id belongs to
//	POST /_fake/retire-key            makes key id unknown
//	POST /_fake/expire-sessions       ends all sessions of role, an ARN, at once
//	POST /_fake/revoke-sessions       denies all sessions of role everything
//
// Parameters are in the query, account among them: the default one's, if it is left out.
func (s *Server) handleDebug() {
	s.mux.HandleFunc("POST /_fake/root-key", func(w http.ResponseWriter, r *http.Request) {
		answerDebug(w, r, func() any { return s.accountIn(r).RootKey() })
	})
	s.mux.HandleFunc("POST /_fake/clock", func(w http.ResponseWriter, r *http.Request) {
		answerDebug(w, r, func() any {
			d, err := time.ParseDuration(r.URL.Query().Get("offset"))
			if err != nil {
				return map[string]string{"error": err.Error()}
			}
			s.SetClockOffset(d)
			return map[string]string{"time": s.wall().UTC().Format(time.RFC3339)}
		})
	})
	s.mux.HandleFunc("POST /_fake/cluster", func(w http.ResponseWriter, r *http.Request) {
		answerDebug(w, r, func() any {
			return map[string]string{"arn": s.accountIn(r).AddCluster(r.URL.Query().Get("name"))}
		})
	})
	s.mux.HandleFunc("POST /_fake/pod-session", func(w http.ResponseWriter, r *http.Request) {
		answerDebug(w, r, func() any {
			q := r.URL.Query()
			key, err := s.accountIn(r).PodSession(Pod{q.Get("cluster"), q.Get("namespace"), q.Get("serviceAccount"), q.Get("name"), q.Get("uid")})
			if err != nil {
				return map[string]string{"error": err.Error()}
			}
			return key
		})
	})
	s.mux.HandleFunc("POST /_fake/web-identity-token", func(w http.ResponseWriter, r *http.Request) {
		answerDebug(w, r, func() any {
			q := r.URL.Query()
			return map[string]string{"token": s.WebIdentityToken(q.Get("issuer"), q.Get("subject"), q.Get("audience"), time.Hour)}
		})
	})
	s.mux.HandleFunc("POST /_fake/rotate-key", func(w http.ResponseWriter, r *http.Request) {
		answerDebug(w, r, func() any {
			key, err := s.RotateKey(r.URL.Query().Get("id"))
			if err != nil {
				return map[string]string{"error": err.Error()}
			}
			return key
		})
	})
	s.mux.HandleFunc("POST /_fake/retire-key", func(w http.ResponseWriter, r *http.Request) {
		answerDebug(w, r, func() any { return map[string]bool{"retired": s.RetireKey(r.URL.Query().Get("id"))} })
	})
	for path, end := range map[string]func(string) int{"expire-sessions": s.ExpireSessions, "revoke-sessions": s.RevokeSessions} {
		s.mux.HandleFunc("POST /_fake/"+path, func(w http.ResponseWriter, r *http.Request) {
			answerDebug(w, r, func() any { return map[string]int{"sessions": end(r.URL.Query().Get("role"))} })
		})
	}
}

// accountIn is the account that a request under /_fake/ names.
func (s *Server) accountIn(r *http.Request) Account {
	if id := r.URL.Query().Get("account"); id != "" {
		return s.Account(id)
	}
	return Account{s.home}
}
