# Verifies the signatures of the message on standard input with Mail::DKIM; says a line of each, the topmost first.
#
#     perl verify_dkim.pl ADDRESS PORT      the name server to ask
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS::Resolver;

my ($address, $port) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => [$address], port => $port, recurse => 1));
my $verifier = Mail::DKIM::Verifier->new;
binmode STDIN;
{
    local $/;
    $verifier->PRINT(scalar <STDIN>);
}
$verifier->CLOSE;
for my $signature ($verifier->signatures) {
    printf "%s._domainkey.%s %s %s\n",
        $signature->selector, $signature->domain, $signature->algorithm, $signature->result_detail;
}
