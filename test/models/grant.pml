/* A sender at its bandwidth grant and the agent that stops looking (channel/grant.h, G1 to G4, W1 to W3). The stores of both go through
   store buffers (TSO). The sender's looks for the grant by time are left out: a sleep ends with a grant only, so that one that the agent
   does not know of is a deadlock. */

#ifndef N
#define N 4                     /* bytes to send */
#endif

byte tail, grant;
bit watched;
chan ask = [2] of { bit };      /* kAskGrant; a second one, while one is unread, changes nothing */
chan sender_buffer = [N] of { byte };
chan agent_buffer = [2] of { bit };

active proctype SenderMemory() {
  byte x;
end:
  do :: atomic { sender_buffer?x -> tail = x; x = 0 } od
}
active proctype AgentMemory() {
  bit x;
end:
  do :: atomic { agent_buffer?x -> watched = x; x = 0 } od
}

active proctype Sender() {
  byte sent;
  do
  :: sent == N -> break
  :: sent < N && sent < grant -> sent++; sender_buffer!sent            /* G1 */
  :: sent < N && sent >= grant ->
#ifndef BAD_NO_FENCE_SENDER
       empty(sender_buffer);    /* G2 */
#endif
       if
       :: sent < grant          /* G3 */
       :: else ->
            if
            :: watched          /* G4 */
            :: else -> if :: nfull(ask) -> ask!1 :: full(ask) fi
            fi;
            sent < grant        /* asleep */
       fi
  od
}

active proctype Agent() {
  byte seen;
  bit active_now;
end:
  do
  :: ask?_ -> agent_buffer!1; active_now = 1
  :: active_now ->              /* a round */
       if :: tail > seen -> seen = tail :: else fi;
       if
       :: seen == grant && grant < N -> grant++         /* when the bucket holds something */
       :: seen == grant && grant == N -> active_now = 0 /* all is sent */
       :: grant > seen ->       /* it has been quiet for long enough */
            agent_buffer!0;     /* W1 */
#ifndef BAD_NO_FENCE_AGENT
            empty(agent_buffer);        /* W2 */
#endif
#ifdef BAD_NO_RECHECK
            active_now = 0
#else
            if                  /* W3 */
            :: tail > seen -> agent_buffer!1
            :: else -> active_now = 0
            fi
#endif
       :: grant > seen -> skip  /* it has not */
       fi
  od
}
